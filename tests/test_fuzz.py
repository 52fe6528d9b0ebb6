"""Suites, folders and weight files made from the grammar of what users write, right and wrong.

Whatever they hold, `kdbench run` ends in one of two ways: with finite numbers and status 0, or with one message, status 2 and
nothing written. A longer search: `KDBENCH_FUZZ=3000 pytest tests/test_fuzz.py`.
"""

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from kdbench import cli
from kdbench.method.interface import METHODS
from kdbench.models import build_model
from kdbench.suite.plugins import load_shipped

load_shipped()

EXAMPLES = int(os.environ.get("KDBENCH_FUZZ", 0))
"""How many are searched for anew; without it the same few are tried each time."""

CLASSES = ("bee", "wasp")


def picture(label: int, place: int, *, size: int = 8) -> np.ndarray:
    random = np.random.default_rng((label, place))
    pixels = random.integers(0, 150, (size, size))
    pixels[:, 2 * label + 1] += 60
    return pixels.astype(np.uint8)


def write_folder(root: Path, kind: str) -> None:
    """A folder of images with one peculiarity."""
    classes = ("bee",) if kind == "one class" else CLASSES
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(classes):
            folder = root / split / ("wasp é" if kind == "odd names" and name == "wasp" else name)
            folder.mkdir(parents=True)
            for i in range(count):
                FILES.get(kind, plain)(folder, label, 100 * (split == "test") + i)
    first = root / "train" / "bee"
    if kind == "no test":
        shutil.rmtree(root / "test")
    if kind == "empty class":
        shutil.rmtree(first)
        first.mkdir()
    if kind == "broken file":
        (first / "000.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    if kind == "text among images":
        (first / "notes.txt").write_text("a bee")
        (first / "list.jpg").write_text("no image")
    if kind == "no UTF-8":
        os.rename(os.fsencode(first / "000.png"), os.fsencode(first) + b"/caf\xe9.png")
    if kind == "unlike classes":
        (root / "test" / "wasp").rename(root / "test" / "hornet")
    if kind == "test images in train":
        shutil.copytree(root / "test", root / "train", dirs_exist_ok=True)
    if kind == "one image":
        for file in sorted((root / "train").glob("*/*.png"))[1:]:
            file.unlink()


def plain(folder: Path, label: int, i: int) -> None:
    Image.fromarray(picture(label, i)).save(folder / f"{i:03}.png")


def of_mode(mode: str, suffix: str = ".png") -> Callable[[Path, int, int], None]:
    def write(folder: Path, label: int, i: int) -> None:
        pixels = picture(label, i)
        image = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
        image.save(folder / f"{i:03}{suffix}")

    return write


def of_any_size(folder: Path, label: int, i: int) -> None:
    Image.fromarray(picture(label, i, size=7 + i % 5)).resize((5 + i % 9, 11)).save(folder / f"{i:03}.jpg")


FILES = {
    **{f"mode {mode}": of_mode(mode) for mode in ("1", "LA", "I;16", "P", "RGB", "RGBA")},
    **{f"mode {mode}": of_mode(mode, ".tif") for mode in ("F", "I")},
    "mode CMYK": of_mode("CMYK", ".jpg"),
    "any size": of_any_size,
}
PECULIAR = ("no test", "empty class", "broken file", "text among images", "no UTF-8", "unlike classes", "test images in train")
FOLDERS = (*["plain"] * 6, *FILES, *PECULIAR, "one class", "one image", "odd names", "missing")


def write_weights(file: Path, kind: str) -> None:
    """A file of weights for `resnet8` on two classes and one channel, with one peculiarity."""
    torch.manual_seed(0)
    model = build_model("resnet8", num_classes=3 if kind == "other classes" else 2, in_channels=1)
    state: Any = model.state_dict()
    if kind == "not finite":
        state["classifier.bias"][0] = torch.nan
    if kind == "half":
        state = {name: tensor.half() for name, tensor in state.items()}
    if kind == "lacking":
        del state["classifier.weight"]
    if kind == "text":
        file.write_text("no weights")
        return
    wrapped = {
        "numpy beside": {"model": state, "best_acc": np.float64(0.9), "epoch": 3},
        "average beside": {"state_dict": state, "state_dict_ema": dict(state)},
        "prefixed": {f"module.{name}": tensor for name, tensor in state.items()},
        "whole module": model,
        "list": [1, 2],
    }
    torch.save(wrapped.get(kind, state), file)


WEIGHTS = (
    "state",
    "numpy beside",
    "average beside",
    "prefixed",
    "half",
    "other classes",
    "not finite",
    "lacking",
    "text",
    "list",
    "whole module",
)

TYPOS: tuple[Any, ...] = (None, -1, 0, "x", [], {}, 1e400, math.nan, True, "~", "é")
"""What stands where another value ought to."""

RIGHT: dict[str, tuple[Any, ...]] = {
    "dataset.size": (8, 9, 16),
    "dataset.channels": (1, 3),
    "dataset.validation": (0.0, 0.25),
    "dataset.train_images": (0, 12),
    "recipe.epochs": (1, 2),
    "recipe.batch_size": (8, 2, 1000),
    "recipe.optimiser.momentum": (0.9, 0.0),
    "recipe.augmentation.padding_mode": ("zeros", "reflect"),
    "recipe.precision": ("default", "fp32", "bf16"),
    "seeds": ([0], [3]),
    "keep_students": (False, True),
    "pairs": tuple(
        [{"teacher": teacher, "student": student}]
        for teacher in ("resnet8", "wrn_10_1", {"model": "resnet8", "weights": "teacher.pth"})
        for student in ("resnet8", {"model": "resnet8", "weights": "teacher.pth"})
    ),
}
"""What a suite may hold, by the place in it."""

WRONG: dict[str, tuple[Any, ...]] = {
    "title": TYPOS,
    "dataset.label": (*TYPOS, ""),
    "dataset.root": (*TYPOS, "nowhere"),
    "dataset.size": (*TYPOS, 1, 3, 8.5, "8"),
    "dataset.channels": (*TYPOS, 2),
    "dataset.mean": (*TYPOS, [0.5]),
    "dataset.validation": (*TYPOS, 0.9, 0.001),
    "dataset.train_images": (*TYPOS, 1, 2, 3, 1000),
    "recipe.epochs": (*TYPOS, 1.5),
    "recipe.batch_size": (*TYPOS, 1),
    "recipe.optimiser.lr": (*TYPOS, "0.01"),
    "recipe.optimiser.momentum": (*TYPOS, 1),
    "recipe.optimiser.name": TYPOS,
    "recipe.schedule": (*TYPOS, {"milestones": [5]}),
    "recipe.augmentation.pad": (*TYPOS, 100),
    "recipe.precision": (*TYPOS, "tf32"),
    "recipe.base": (*TYPOS, "short"),
    "seeds": (*TYPOS, [0, 0], [-1], ["a"], [1.0]),
    "methods": (*TYPOS, ["kdd"], [{"kd": 3}], ["kd", "kd"], ["kd+kd"]),
    "pairs": (*TYPOS, [{}], [{"teacher": "resnet8"}]),
    "pairs.0.teacher": (
        *TYPOS,
        "resnet20x",
        {"model": "wrn_10_1", "hooks": ["x"]},
        {"model": "wrn_10_1", "weights": "teacher.pth"},
    ),
    "pairs.0.student": (*TYPOS, "vgg8", "torchvision/resnet18", {"model": "resnet8", "weights": "none.pth"}),
    "teacher": TYPOS,
    "keep_students": TYPOS,
    "unknown": TYPOS,
}
"""What it may not hold; some of these are right all the same, such as a title `x`."""

SHORT = {
    "ft": {"paraphraser_epochs": 1},
    "ft_repdistiller": {"paraphraser_epochs": 1},
    "fitnets": {"hint_epochs": 1},
    "ab": {"stage_epochs": 1},
    "fsp": {"stage_epochs": 1},
    "crd": {"negatives": 16},
    "dml": {"peer": "resnet8"},
}


def put(tree: Any, place: str, value: Any) -> None:
    *path, last = (int(step) if step.isdigit() else step for step in place.split("."))
    for step in path:
        tree = tree[step]
    tree[last] = value


@st.composite
def suites(draw: st.DrawFn) -> dict[str, Any]:
    """A suite that is right, or has one or two mistakes."""
    names = draw(st.lists(st.sampled_from(METHODS.names()), min_size=1, max_size=2, unique=True))
    methods = [{name: dict(SHORT.get(name, {}))} for name in names if name != "scratch"]
    tree: dict[str, Any] = {
        "title": "Bees",
        "dataset": {"name": "imagefolder", "label": "bees", "root": "images"},
        "recipe": {"optimiser": {"lr": 0.01}, "augmentation": {"pad": 1}},
        "methods": ["scratch", *methods],
    }
    for place, values in RIGHT.items():
        put(tree, place, deepcopy(draw(st.sampled_from(values))))
    for place in draw(st.lists(st.sampled_from(["", "", *sorted(WRONG), "methods.1", "-"]), max_size=2, unique=True)):
        try:
            if place == "-":
                del tree[draw(st.sampled_from(sorted(tree)))]
            elif place == "methods.1":
                ((name, given_parameters),) = tree["methods"][1].items()
                key = draw(st.sampled_from(sorted({*METHODS.get(name).Params.model_fields, "unknown"})))
                given_parameters[key] = draw(st.sampled_from((*TYPOS, 0.5, 2, 1e9)))
            elif place:
                put(tree, place, deepcopy(draw(st.sampled_from(WRONG[place]))))
        except (TypeError, IndexError, KeyError):  # another mistake has removed the place of this one
            continue
    return tree


def run(*arguments: str) -> tuple[int, str, str]:
    """`kdbench` in this process: status, standard output, standard error."""
    sys.argv, before = ["kdbench", *arguments], sys.argv
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = before
    return status, out.getvalue(), err.getvalue()


def written(root: Path) -> set[str]:
    """Every file but decoded images and the lock, which say nothing of a trial."""
    files = (file for file in root.rglob("*") if file.is_file() and "cache" not in file.parts and file.name != ".lock")
    return {file.relative_to(root).as_posix() for file in files}


def assert_finite(value: object, where: str) -> None:
    if isinstance(value, float):
        assert math.isfinite(value), where
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        assert_finite(item, f"{where}.{key}")


@pytest.fixture(autouse=True)
def _markdown_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.report.command.FORMATS", ("md",))


@given(tree=suites(), folder=st.sampled_from(FOLDERS), weights=st.sampled_from(WEIGHTS))
@settings(
    max_examples=EXAMPLES or 20,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate,) if not EXAMPLES else (Phase.generate, Phase.shrink),  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_finite_numbers_or_one_message_and_nothing_written(tree, folder, weights, tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    if folder != "missing":
        write_folder(root / "images", folder)
    write_weights(root / "teacher.pth", weights)
    if tree.get("dataset", {}) and isinstance(tree["dataset"], dict) and tree["dataset"].get("root") == "images":
        tree["dataset"]["root"] = str(root / "images")
    (root / "suite.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
    before = written(root)
    status, out, err = run("run", str(root / "suite.yaml"), "--results", str(root / "results"), "--device", "cpu")
    told = f"{out}\n{err}"
    assert "Traceback" not in told
    if status == 0:
        records = [json.loads(file.read_text()) for file in (root / "results").glob("trials/*/record.json")]
        assert records
        for record in records:
            assert record["status"] == "done"
            assert_finite({key: value for key, value in record.items() if key != "spec"}, record["setting"])
    else:
        assert status == 2, told
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, told
        assert written(root) == before, told
