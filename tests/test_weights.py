"""Weights that a network starts from: what they are, what they fit, and what a run makes of them."""

import argparse
import csv
import datetime
import json
import shutil
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import Lab, Said
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from kdbench import KdbenchError
from kdbench.models import MODELS, Network, build_model, register_model
from kdbench.models.foreign_weights import read_foreign
from kdbench.models.layouts import usual_names
from kdbench.models.pretrained import fetch, identify
from kdbench.models.start_weights import fit
from kdbench.models.weights import state_hash
from kdbench.report.compare import compare
from kdbench.runner.cost import costs
from kdbench.runner.frame import load_results
from kdbench.runner.plan import Rerun
from kdbench.runner.rates import Basis
from kdbench.runner.run import Options, execute
from kdbench.spec.record import PROTOCOL, ImageCounts
from kdbench.spec.trial import TrialSpec
from kdbench.suite.code_hash import trial_code
from kdbench.suite.resolve import load_suite
from kdbench.suite.suite import Suite

ROOT = Path(__file__).parent.parent
RESNET = "torchvision/resnet18"
CLASSES = 3


@cache
def state_of(*, classes: int = CLASSES, seed: int = 0) -> dict[str, Tensor]:
    """Of torchvision's resnet18; read it only."""
    torch.manual_seed(seed)
    return torchvision.models.resnet18(num_classes=classes).state_dict()


def small(prefix: str, *, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {f"{prefix}{name}": value for name, value in build_model("resnet8", num_classes=CLASSES).state_dict().items()}


SMALL = small("")


def own_resnet(*, num_classes: int = CLASSES, in_channels: int = 3) -> nn.Module:
    """A network of one's own, with the names of torchvision's and a thousandth of its weights."""
    down = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
    modules = {
        "conv1": nn.Conv2d(in_channels, 8, 3, 2, 1, bias=False),
        "bn1": nn.BatchNorm2d(8),
        "relu": nn.ReLU(),
        "layer1": BasicBlock(8, 8),
        "layer2": BasicBlock(8, 16, 2, down),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(16, num_classes),
    }
    return nn.Sequential(OrderedDict(modules))


OWN = {"model": "own_resnet", "hooks": ["layer1", "layer2"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of weights, and `photos/`, 32x32 images; read them only.

    `teacher.pth`, `other.pth` and, of seven classes, `seven.pth` are a resnet18's; `own.pth` and `own_seven.pth` an own_resnet's.
    """
    root = tmp_path_factory.mktemp("weights")
    torch.save(state_of(), root / "teacher.pth")
    torch.save(state_of(seed=1), root / "other.pth")
    torch.save(state_of(classes=7), root / "seven.pth")
    torch.save(own_resnet().state_dict(), root / "own.pth")
    torch.save(own_resnet(num_classes=7).state_dict(), root / "own_seven.pth")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label in range(CLASSES):
            (root / "photos" / split / str(label)).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 150, (32, 32, 3))
                pixels[:, 10 * label : 10 * label + 8] += 80
                Image.fromarray(pixels.astype(np.uint8)).save(root / "photos" / split / str(label) / f"{i}.png")
    return root


@pytest.fixture
def write(lab: Lab, folder: Path) -> Iterator[Callable[..., Suite]]:
    """The tiny suite on the photos with a pair of one's own; own_resnet is registered."""
    forget = MODELS.snapshot()
    register_model("own_resnet")(own_resnet)

    def suite(teacher: object, student: object, *, size: int = 32, **changes: Any) -> Suite:
        given = {"root": str(folder / "photos"), "label": "photos", "size": size, "channels": 3}
        recipe = {"epochs": 2, "batch_size": 8, "schedule": {"milestones": []}}
        return lab.suite(
            **{
                "dataset": given,
                "recipe": recipe,
                "methods": ["scratch", "kd"],
                "pairs": [{"teacher": teacher, "student": student}],
                **changes,
            }
        )

    yield suite
    forget()


def run(lab: Lab, suite: Suite, **options: Any) -> list[str]:
    said = Said()
    execute(suite, lab.store, options=Options(**{"device": "cpu", **options}), progress=said)
    return said.lines


def refusal(call: Callable[..., object], *args: Any, **options: Any) -> str:
    with pytest.raises(KdbenchError) as error:
        call(*args, **options)
    return str(error.value)


# What they are


def test_a_file_is_known_by_its_bytes_and_not_by_its_place(folder, tmp_path):
    shutil.copy(folder / "teacher.pth", tmp_path / "copy.pth")
    here = identify("teacher.pth", model=RESNET, folder=folder)
    there = identify(str(tmp_path / "copy.pth"), model=RESNET, folder=folder)
    assert here.file == folder / "teacher.pth"
    assert here.model_dump() == there.model_dump() == {"name": here.name}
    assert here.name.startswith("sha256:")
    assert identify("other.pth", model=RESNET, folder=folder).name != here.name
    assert here.label == f"weights {here.name[7:15]}"


@pytest.mark.parametrize(
    "name", ["best.pth.tar", "last.ckpt", "t.t7", "W.SAFETENSORS", "best", "IMAGENET1K_V1", "a1_in1k", "a#b.pth", "up/down.x"]
)
def test_what_lies_in_the_folder_is_a_file_whatever_its_name(name, tmp_path):
    """Even the name of published weights. The content decides what it is."""
    for write, content in ((save_file, SMALL), (torch.save, {"state_dict": SMALL})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(content, tmp_path / name)
        found = identify(name, model=RESNET, folder=tmp_path)
        assert (found.file, found.key) == (tmp_path / name, "")
        assert len(fetch(found, model=RESNET, in_channels=3)) == len(SMALL)


def test_a_file_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(SMALL, tmp_path / "w.pth")
    assert identify("~/w.pth", model="resnet8", folder=Path("elsewhere")).file == tmp_path / "w.pth"
    assert "~no.such.user/w.pth cannot be read" in refusal(identify, "~no.such.user/w.pth", model="resnet8", folder=tmp_path)


def test_a_key_is_part_of_what_weights_are(tmp_path):
    torch.save({"state_dict": SMALL, "state_dict_ema": SMALL}, tmp_path / "w.ckpt")
    plain, keyed = (identify(f"w.ckpt{key}", model="resnet8", folder=tmp_path) for key in ("", "#state_dict_ema"))
    assert (keyed.name, keyed.key, keyed.file) == (f"{plain.name}#state_dict_ema", "state_dict_ema", plain.file)
    assert keyed.label == f"{plain.label}#state_dict_ema"
    assert "#" not in plain.name + plain.label
    assert fetch(keyed, model="resnet8", in_channels=3).keys() == {f"state_dict_ema.{name}" for name in SMALL}


@pytest.mark.parametrize("given", ["IMAGENET1K_V1", "ResNet34_Weights.IMAGENET1K_V1", "DEFAULT"])
def test_weights_of_torchvision_are_known_by_their_full_name_and_hash(given, folder):
    weights = identify(given, model="torchvision/resnet34", folder=folder)
    assert weights.name == "ResNet34_Weights.IMAGENET1K_V1 (b627a593)"
    assert (weights.label, weights.file) == ("IMAGENET1K_V1", None)


@pytest.mark.parametrize("given", ["a1_in1k", "resnet18.a1_in1k"])
def test_weights_of_timm_are_known_by_model_and_tag(given, folder):
    pytest.importorskip("timm")
    weights = identify(given, model="timm/resnet18", folder=folder)
    assert (weights.name, weights.label) == ("resnet18.a1_in1k", "a1_in1k")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ({"url": "https://x.org/se-resnet18-4bb0ce65.pth"}, "resnet18.a1_in1k (4bb0ce65)"),
        ({"hf_hub_id": "timm/resnet18.a1_in1k@1a2b3c4d5e"}, "resnet18.a1_in1k (1a2b3c4d5e)"),
        ({"hf_hub_id": "timm/resnet18", "url": "https://x.org/se-resnet18-4bb0ce65.pth"}, "resnet18.a1_in1k"),
        ({"url": "https://x.org/weights.pth.tar"}, "resnet18.a1_in1k"),
        ({}, "resnet18.a1_in1k"),
    ],
)
def test_a_hash_where_timm_fetches_from_is_part_of_the_name(place, name, monkeypatch, folder):
    timm = pytest.importorskip("timm")
    config = timm.models.PretrainedCfg(**place)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: config)
    assert identify("a1_in1k", model="timm/resnet18", folder=folder).name == name


def test_a_hash_in_the_name_of_weights_of_timm_is_checked(monkeypatch, folder):
    timm = pytest.importorskip("timm")
    model, name = "legacy_seresnet18", "legacy_seresnet18.in1k (4bb0ce65)"
    asked: list[bool] = []
    published = timm.create_model(model).state_dict()

    def local(*_: object, check_hash: bool, **__: object) -> dict[str, Tensor]:
        asked.append(check_hash)
        return dict(published)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", local)
    weights = identify("in1k", model=f"timm/{model}", folder=folder)
    assert weights.name == name
    assert state_hash(fetch(weights, model=f"timm/{model}", in_channels=3)) == state_hash(published)
    assert asked == [True]


@pytest.mark.parametrize(
    ("weights", "model", "message"),
    [
        ("nothing.pth", RESNET, "nothing.pth cannot be read (No such file or directory). Give a file of weights."),
        ("./photos", RESNET, "photos is a folder. Give a file in it, such as weights.safetensors."),
        (
            "IMAGENET1K_V3",
            "torchvision/resnet50",
            "torchvision/resnet50 has no weights 'IMAGENET1K_V3'. Did you mean 'IMAGENET1K_V2'? "
            "It has: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT.",
        ),
        ("ResNet34_Weights.DEFAULT", RESNET, "torchvision/resnet18 has no weights 'ResNet34_Weights.DEFAULT'."),
        ("a1_in1k", "resnet20", "nobody publishes weights 'a1_in1k' of resnet20. Give a file, such as teacher.safetensors."),
        ("photos", "resnet20", "photos, and nobody publishes weights 'photos' of resnet20. Give a file"),
        ("best.CKPT", RESNET, "best.CKPT cannot be read (No such file or directory). Give a file of weights."),
        ("nothing.pth#ema", RESNET, "nothing.pth cannot be read (No such file or directory). Give a file of weights."),
        ("best", RESNET, "torchvision/resnet18 has no weights 'best'. It has: IMAGENET1K_V1, DEFAULT. Nor is there a file "),
    ],
)
def test_weights_that_do_not_exist_are_refused_where_the_suite_names_them(weights, model, message, folder, tmp_path):
    told = refusal(identify, weights, model=model, folder=folder)
    assert message in told
    file = tmp_path / "mine.yaml"
    pair = f"{{teacher: {{model: {model}, weights: {weights}}}, student: resnet8}}"
    file.write_text(f"title: Mine\ndataset: digits\nrecipe: digits-quick\nseeds: [0]\nmethods: [kd]\npairs:\n  - {pair}\n")
    assert refusal(load_suite, file).startswith(f"{file}, pairs[0].teacher.weights: ")


def test_an_unknown_tag_of_timm_is_answered_with_those_that_exist(folder):
    pytest.importorskip("timm")
    told = refusal(identify, "a9", model="timm/resnet18", folder=folder)
    assert told.startswith("timm/resnet18 has no weights 'a9'. It has: a1_in1k, a2_in1k, ")


# Trials


@pytest.mark.parametrize("folder", sorted((ROOT / "results" / "reference").glob("*/")), ids=lambda folder: folder.name)
def test_reference_results_of_this_protocol_keep_their_ids(folder):
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    if int(rows[0]["protocol"]) == PROTOCOL:
        suite = load_suite(rows[0]["suite"])
        settings = [setting for choice in suite.candidates for setting in choice.settings]
        of_suite = {trial.id for trial in (*suite.trials, *(trial for setting in settings for trial in setting.reported))}
        assert {row["trial"] for row in rows} <= of_suite


def test_other_weights_are_other_trials_and_another_place_is_not(write, folder, tmp_path):
    def ids(name: str) -> list[str]:
        suite = write({"model": RESNET, "weights": name}, RESNET)
        return [trial.id for trial in (*suite.teachers, *suite.trials)]

    shutil.copy(folder / "teacher.pth", tmp_path / "copy.pth")
    first, moved, other = ids(str(folder / "teacher.pth")), ids("copy.pth"), ids(str(folder / "other.pth"))
    assert first == moved
    assert first[1] == other[1]  # scratch, which reads no teacher
    assert not {first[0], first[2]} & {other[0], other[2]}


def test_a_teacher_that_is_used_as_it_is_is_no_trial_of_a_student(write, folder):
    weights = str(folder / "teacher.pth")
    suite = write({"model": RESNET, "weights": weights}, {"model": RESNET, "weights": weights})
    (teacher,) = suite.teachers
    assert (teacher.methods, teacher.method, teacher.epochs) == ((), "pretrained", 0)
    assert teacher.id not in {trial.id for trial in suite.trials}


def test_hooks_are_part_of_a_trial_and_tables_tell_them_apart(write):
    plain, hooked = (
        write(network, "resnet8").teachers[0] for network in (RESNET, {"model": RESNET, "hooks": ["layer2", "layer4"]})
    )
    assert plain.id != hooked.id
    assert (plain.label, hooked.label[: len(RESNET) + 8]) == (RESNET, f"{RESNET} (hooks ")


def test_a_spec_names_hooks_and_weights_only_where_they_are_given(write, folder):
    plain = write(RESNET, RESNET).trials[0].model_dump(mode="json")
    assert {"hooks", "weights"} & plain.keys() == set()
    given = write(RESNET, {"model": RESNET, "weights": str(folder / "teacher.pth")}).trials[0].model_dump(mode="json")
    assert given["weights"].keys() == {"name"}
    assert TrialSpec.model_validate(given).model_dump(mode="json") == given


def test_a_plan_builds_no_network_and_fetches_nothing(write, folder, lab, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(nn.Module, "__init__", never)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", never)
    suite = write({"model": RESNET, "weights": "IMAGENET1K_V1"}, {"model": RESNET, "weights": str(folder / "seven.pth")})
    assert [planned.status.value for planned in lab.plan(suite).students] == ["missing", "missing"]


# Files of other programs


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state_of().items()}


WRITTEN: dict[str, Callable[[Path], object]] = {
    "a state dict": lambda file: torch.save(state_of(), file),
    "safetensors": lambda file: save_file(state_of(), file.with_suffix(".safetensors")),
    "of DataParallel": lambda file: torch.save(prefixed("module."), file),
    "compiled, of DistributedDataParallel": lambda file: torch.save(prefixed("module._orig_mod."), file),
    "beside an optimiser": lambda file: torch.save({"state_dict": prefixed("module."), "epoch": 3, "best": 1.0}, file),
    "RepDistiller's": lambda file: torch.save({"opt": argparse.Namespace(lr=0.05), "model": state_of()}, file),
    "kdbench's own": lambda file: save_file(prefixed("body."), file.with_suffix(".safetensors")),
    "before there were counts": lambda file: torch.save(
        {name: value for name, value in state_of().items() if not name.endswith("num_batches_tracked")}, file
    ),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_file_is_read_however_it_was_written(way, tmp_path):
    WRITTEN[way](tmp_path / "weights.pth")
    (file,) = tmp_path.iterdir()
    network = build_model(RESNET, num_classes=CLASSES)
    found = fit(read_foreign(file), network, whole=True)
    network.load_state_dict(found.state, strict=False)
    assert found.new_classifier == ""
    assert state_hash(network.body.state_dict()) == state_hash(state_of())


class Mine:
    """Something that only its own code can read."""


class Bag(dict[str, object]):
    """What many scripts keep their options in."""

    def __init__(self, **options: object) -> None:
        super().__init__(options)
        self.__dict__ = self


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('code of a file was run')",)


BESIDE: dict[str, object] = {
    "NumPy's numbers": [np.float64(90.1), np.int64(3), np.bool_(True), np.str_("a"), np.float32, np.dtype("f4")],
    "NumPy's arrays": [np.arange(6.0).reshape(2, 3), np.array([1, "a", None], dtype=object), np.random.RandomState(0).get_state()],
    "an optimiser": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": np.float64(0.1)}]},
    "options": argparse.Namespace(lr=0.1, folder=Path("x"), seen=datetime.datetime(2026, 1, 1), bag=Bag(a=Bag(b=1))),
    "collections": [defaultdict(list, a=[1]), deque([1, 2], maxlen=3), Counter("aab"), OrderedDict(a=1)],
    "an object": Mine(),
    "code": Evil(),
}


@pytest.mark.parametrize("newer", [True, False], ids=["", "before torch 1.6"])
@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_weights_is_passed_over_and_no_code_is_run(what, newer, tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"before": BESIDE[what], "net": SMALL, "after": [BESIDE[what]]}, file, _use_new_zipfile_serialization=newer)
    if not newer:
        file.write_bytes(file.read_bytes().replace(b"numpy._core", b"numpy.core"))  # as NumPy 1 has it
    found = fit(read_foreign(file), build_model("resnet8", num_classes=CLASSES), whole=True)
    assert (state_hash(found.state), found.notes) == (state_hash(SMALL), ())


LEFT = "leave out {} of the file's tensors as no part of the network: {}"
WITHIN: dict[str, tuple[object, tuple[str, ...]]] = {
    "Lightning": (
        {"state_dict": small("model.net.") | {"loss.weight": torch.ones(3), "seen.total": torch.tensor(3)}},
        (LEFT.format(2, "state_dict.loss.weight, state_dict.seen.total"),),
    ),
    "a distiller": (
        {"model": small("module.student.") | {"module.teacher.conv1.weight": torch.ones(3)}, "best_acc": torch.tensor(3.0)},
        (LEFT.format(2, "model.module.teacher.conv1.weight, best_acc"),),
    ),
    "a profiler": (
        small("") | {"total_ops": torch.zeros(1), "stem.total_ops": torch.zeros(1), "a.b.total_params": torch.zeros(1)},
        (LEFT.format(3, "total_ops, stem.total_ops, a.b.total_params"),),
    ),
    "a compiler": ({"ddp": {name.replace("groups", "groups._orig_mod"): value for name, value in small("_orig_mod.").items()}}, ()),
    "an average": (small("module.") | {"n_averaged": torch.tensor(9)}, (LEFT.format(1, "n_averaged"),)),
    "an average by name": ({"ema": small("module.")}, ("are 'ema.module' of the file",)),
    "an average beside": (
        {"model_ema": small("module.", seed=1) | {"n_averaged": torch.tensor(9)}, "model": small("")},
        (
            "are 'model' of the file; 'model_ema.module' fits, too: FILE#model_ema.module would take that",
            LEFT.format(1, "model_ema.n_averaged"),
        ),
    ),
    "the same twice": ({"model": small(""), "state_dict": small("")}, ()),
}


@pytest.mark.parametrize("what", WITHIN)
def test_a_network_is_found_among_others_and_what_is_left_out_is_told(what, tmp_path):
    tree, notes = WITHIN[what]
    torch.save(tree, tmp_path / "w.pth")
    found = fit(read_foreign(tmp_path / "w.pth"), build_model("resnet8", num_classes=CLASSES), whole=True)
    assert (state_hash(found.state), found.notes) == (state_hash(SMALL), notes)


def test_a_key_takes_one_of_several(tmp_path):
    file = tmp_path / "w.pth"
    both = {"student": small(""), "teacher": small("module.", seed=1)}
    torch.save({"model": both, "ema": small("", seed=2), "later": {"ema": small("", seed=3)}}, file)

    def hash_of(key: str) -> str:
        return state_hash(fit(read_foreign(file, key=key), build_model("resnet8", num_classes=CLASSES), whole=True).state)

    for key, averages in (("", ", ema, later.ema"), ("model", "")):
        assert refusal(hash_of, key) == (
            f"several networks in it fit: model.student, model.teacher.module{averages}. Name one of them after the file: "
            "FILE#model.student."
        )
    for seed, keys in enumerate(
        (("student", "model.student"), ("teacher", "model.teacher.module", "module"), ("ema",), ("later",))
    ):
        assert {hash_of(key) for key in keys} == {state_hash(small("", seed=seed))}
    assert refusal(hash_of, "models") == f"{file} holds no 'models'. Did you mean 'model'? It has: model, ema, later."


def test_weights_from_a_gpu_are_read_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.serialization.location_tag", lambda _: "cuda:0")
    for newer in (True, False):
        torch.save(SMALL, tmp_path / "w.pth", _use_new_zipfile_serialization=newer)
        assert state_hash(read_foreign(tmp_path / "w.pth")) == state_hash(SMALL)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.pth": (lambda f: f.write_text("hello"), "text.pth is damaged or holds no weights. Give what `torch.save("),
    "empty.pth": (lambda f: f.touch(), "empty.pth is damaged or holds no weights."),
    "half.pth": (
        lambda f: (torch.save(state_of(), f), f.write_bytes(f.read_bytes()[:9999])),
        "half.pth is damaged or holds no weights.",
    ),
    "text.safetensors": (lambda f: f.write_text("hello"), "text.safetensors is damaged or holds no weights."),
    "half.safetensors": (
        lambda f: (save_file(state_of(), f), f.write_bytes(f.read_bytes()[:9999])),
        "half.safetensors is damaged or no safetensors file (",
    ),
    "whole.pth": (
        lambda f: torch.save(torchvision.models.resnet18(), f),
        "whole.pth can only be read by running code that it names (torchvision.models.resnet.ResNet), which kdbench does not. "
        "Keep the weights alone: torch.save(model.state_dict(), file).",
    ),
    "mine.pth": (lambda f: torch.save({"model": {"a": Mine()}}, f), f"running code that it names ({__name__}.Mine)"),
    "inner.pth": (
        lambda f: torch.save({"net": nn.Sequential(nn.Linear(2, 2)), "acc": torch.ones(1)}, f),
        "running code that it names (torch.nn.modules.container.Sequential), which kdbench does not. Keep the weights alone: ",
    ),
    "old.pth": (
        lambda f: torch.save(nn.Linear(2, 2), f, _use_new_zipfile_serialization=False),
        "old.pth can only be read by running code, which kdbench does not. Keep the weights alone: ",
    ),
    "script.pt": (lambda f: torch.jit.script(nn.ReLU()).save(f), "running code that it names (TorchScript), which"),
    "log.pth": (lambda f: torch.save({"epoch": 3, "loss": 0.1}, f), "log.pth holds no state dict (its keys are epoch, loss). Give"),
    "list.pth": (lambda f: torch.save([torch.ones(2)], f), "list.pth holds no state dict (it is a list). Give"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_is_one_sentence(name, tmp_path):
    make, message = BROKEN[name]
    make(tmp_path / name)
    assert message in refusal(read_foreign, tmp_path / name)


# What they fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"fc.weight": torch.ones(3, 9)},
            "they do not fit the network: 1 of another shape (fc.weight: 3x9 instead of 3x512). Give weights of this architecture.",
        ),
        (
            lambda s: {name: value for name, value in s.items() if not name.startswith("layer4")},
            "they do not fit the network: 25 missing (layer4.0.conv1.weight, layer4.0.bn1.weight, layer4.0.bn1.bias, and 22 more). "
            "Give",
        ),
        (
            lambda s: (
                {name: value for name, value in s.items() if name != "conv1.weight"} | {"stem": torch.ones(1), "a.b": torch.ones(1)}
            ),
            "they do not fit the network: 1 missing (conv1.weight); 2 unexpected (stem, a.b). Give weights of this architecture.",
        ),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_weights_of_another_network_are_told_apart(change, message, whole):
    network = build_model(RESNET, num_classes=CLASSES)
    assert refusal(fit, change(state_of()), network, whole=whole).startswith(message)


def test_a_student_keeps_a_new_classifier_where_the_classes_differ():
    network = build_model(RESNET, num_classes=CLASSES)
    found = fit(state_of(classes=7), network, whole=False)
    assert found.new_classifier == "are for 7 classes and the data set has 3"
    assert {"body.fc.weight", "body.fc.bias"} == set(network.state_dict()) - set(found.state)
    headless = {name: value for name, value in state_of().items() if not name.startswith("fc")}
    assert fit(headless, network, whole=False).new_classifier == "have no classifier"


def test_a_teacher_must_fit_to_its_last_tensor():
    network = build_model(RESNET, num_classes=CLASSES)
    assert refusal(fit, state_of(classes=7), network, whole=True) == (
        "they are for 7 classes and the data set has 3. A teacher is used as it is: train it on the data set first, as a student "
        "that starts from these weights, with `keep_students: true`, and give the weights that it leaves."
    )
    headless = {name: value for name, value in state_of().items() if not name.startswith("fc")}
    assert "2 missing (fc.weight, fc.bias)" in refusal(fit, headless, network, whole=True)


def by_crds_names(model: str, network: Network) -> dict[str, Tensor]:
    return {their: network.state_dict()[own] for their, own in usual_names(model, network)["RepDistiller and mdistiller"].items()}


@pytest.mark.parametrize("model", ["", "resnet8"])
def test_where_only_names_differ_the_message_says_so(model):
    network = build_model("resnet8", num_classes=CLASSES)
    renamed = {f"module.a.{name.replace('.', '_')}.b": value for name, value in SMALL.items()}
    renamed["module.a.b.classifier.weight"] = renamed.pop("module.a.classifier_weight.b")  # a name that many networks have
    told = "47 missing (stem.conv.weight, stem.norm.weight, stem.norm.bias, and 44 more); 56 unexpected (stem_conv"
    way = (
        "Their shapes are the network's, and their names differ: rename them if it is the same network, or bring theirs as a model"
    )
    assert told in refusal(fit, renamed, network, whole=True, model=model)
    assert way in refusal(fit, renamed, network, whole=True, model=model)
    del renamed["module.a.stem_conv_weight.b"]
    assert way not in refusal(fit, renamed, network, whole=True, model=model)


def test_what_is_wrong_with_weights_by_other_names_is_told_by_these():
    network = build_model("resnet8", num_classes=CLASSES)
    renamed = {
        their: network.state_dict()[own] for their, own in usual_names("resnet8", network)["RepDistiller and mdistiller"].items()
    }
    del renamed["layer2.0.downsample.0.weight"]
    assert refusal(fit, renamed, network, whole=True, model="resnet8") == (
        "they do not fit the network: 1 missing (layer2.0.downsample.0.weight), by the names of RepDistiller and mdistiller. "
        "Give weights of this architecture."
    )


def test_our_own_networks_start_from_files_too(tmp_path):
    torch.manual_seed(0)
    source = build_model("resnet8").state_dict()
    torch.save({"net": source}, tmp_path / "own.pt")
    network = build_model("resnet8")
    network.load_state_dict(fit(read_foreign(tmp_path / "own.pt"), network, whole=True).state, strict=False)
    assert state_hash(network.state_dict()) == state_hash(source)


# Published ones


def test_torchvisions_own_loader_fetches_its_weights(monkeypatch, folder):
    asked: list[str] = []

    def local(url: str, *_: object, **options: object) -> dict[str, Tensor]:
        asked.append(url)
        assert options["check_hash"]
        return state_of(classes=1000)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", local)
    before = torch.get_rng_state()
    state = fetch(identify("DEFAULT", model=RESNET, folder=folder), model=RESNET, in_channels=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert asked == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url]
    assert state_hash(state) == state_hash(state_of(classes=1000))


def test_timms_own_loader_fetches_its_weights_and_fits_the_channels(monkeypatch, folder):
    timm = pytest.importorskip("timm")
    published = timm.create_model("resnet18").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(published))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", lambda *_, **__: dict(published))
    state = fetch(identify("a1_in1k", model="timm/resnet18", folder=folder), model="timm/resnet18", in_channels=1)
    assert torch.allclose(state["conv1.weight"], published["conv1.weight"].sum(1, keepdim=True), atol=1e-5)
    assert torch.equal(state["layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])


def test_without_a_network_the_way_out_is_told(monkeypatch, folder):
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    weights = identify("IMAGENET1K_V1", model=RESNET, folder=folder)
    assert refusal(fetch, weights, model=RESNET, in_channels=3) == (
        "the weights ResNet18_Weights.IMAGENET1K_V1 (f37072fd) of torchvision/resnet18 cannot be fetched "
        "(<urlopen error Name or service not known>). Fetch them once where there is a network, or give them as a file: "
        "`weights: path`."
    )


def test_a_file_that_changes_after_planning_is_refused(folder, tmp_path):
    file = Path(shutil.copy(folder / "teacher.pth", tmp_path))
    weights = identify("teacher.pth", model=RESNET, folder=tmp_path)
    shutil.copy(folder / "other.pth", file)
    assert refusal(fetch, weights, model=RESNET, in_channels=3) == f"{file} has changed since the suite was read. Start again."


# What a run makes of them


def test_a_run_from_weights_to_a_table(write, lab, folder, another, one_epoch_a_run):
    """A teacher from a file and a student from another: one measured, the other trained; stopped runs end as whole ones do."""
    teacher = {**OWN, "weights": str(folder / "own.pth"), "expected_error_pct": 7}
    methods = ["scratch", {"ft+kd": {"ft": {"paraphraser_epochs": 1}}}]
    suite = write(teacher, {**OWN, "weights": str(folder / "own_seven.pth")}, methods=methods)
    lines = run(lab, suite)

    (spec,) = suite.teachers
    record = lab.record(spec)
    assert (record.status, record.method, record.epochs, lab.curves(spec)) == ("done", "pretrained", 0, [])
    assert record.weights_sha256 == state_hash({f"body.{name}": value for name, value in torch.load(folder / "own.pth").items()})
    students = [lab.record(trial) for trial in suite.trials]
    assert {student.teacher_weights_sha256 for student in students[1:]} == {record.weights_sha256}
    assert {student.teacher_error_pct for student in students[1:]} == {record.test_error_pct}
    assert students[1].teacher == spec.label
    assert spec.label == f"own_resnet ({spec.weights.label}, hooks layer1 layer2)"

    note = f"{suite.trials[0].label} starts with a new classifier: its weights are for 7 classes and the data set has 3"
    assert [student.notes[0] for student in students] == [note] * 2
    warning = (
        f"warning: the teacher {spec.label} has a test error of {record.test_error_pct:.2f} %, and 7 % is expected; see that its "
        "images are normalised, resized and numbered by class as in its training."
    )
    first = next(i for i, line in enumerate(lines) if line.startswith("done scratch, own_resnet"))
    assert {warning, f"note: {note}."} <= set(lines[:first])
    assert any(line.endswith(f"test error {record.test_error_pct:.2f} %") for line in lines[:first])

    while not another.run(suite, **one_epoch_a_run):
        pass
    assert another.outcomes() == lab.outcomes()
    assert run(lab, suite) == ["nothing to train: every trial of the suite has ended. Its images were counted, not read."]


def test_a_teacher_of_repdistiller_is_used_as_it_is_and_the_record_says_by_whose_names(write, lab):
    """As its train_teacher.py writes it, after the learning rate has fallen for the first time."""
    network = build_model("resnet8", num_classes=CLASSES)
    model = by_crds_names("resnet8", network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    optimizer.param_groups[0]["lr"] = 0.05 * 0.1 ** np.sum(np.asarray([150, 180, 210]) < 240)
    tree = {"epoch": 240, "model": model, "best_acc": torch.tensor([33.3]), "optimizer": optimizer.state_dict()}
    torch.save(tree | {"opt": argparse.Namespace(model="resnet8", lr_decay_epochs=[150])}, lab.root / "ckpt_epoch_240.pth")
    suite = write({"model": "resnet8", "weights": "ckpt_epoch_240.pth"}, "resnet8", methods=["kd"], seeds=[0])
    lines = run(lab, suite)
    (teacher,) = suite.teachers
    notes = (
        f"the weights of {teacher.label} have their names as in RepDistiller and mdistiller",
        f"the weights of {teacher.label} leave out 1 of the file's tensors as no part of the network: best_acc",
    )
    assert lab.record(teacher).notes == notes
    assert {f"note: {note}." for note in notes} <= set(lines)
    assert lab.record(teacher).weights_sha256 == state_hash(network.state_dict())
    assert lab.record(suite.trials[0]).status == "done"


def test_a_network_that_computes_otherwise_on_these_images_is_refused(write, lab):
    torch.save(by_crds_names("vgg8", build_model("vgg8", num_classes=CLASSES)), lab.root / "vgg8.pth")
    for size in (32, 64):
        suite = write({"model": "vgg8", "weights": "vgg8.pth"}, "resnet8", methods=["kd"], size=size)
        if size == 32:
            assert lab.builder(suite).start(suite.teachers[0])
        else:
            assert "pools once more on images of 64 pixels" in refusal(lab.builder(suite).start, suite.teachers[0])


def test_what_was_fetched_by_a_tag_is_bound_by_the_records(write, lab, another, monkeypatch):
    """The tag is the same, and so are the trials; the records tell apart what it stood for."""
    timm = pytest.importorskip("timm")
    tagged = {"model": "timm/test_resnet", "weights": "r160_in1k"}
    suite = write(tagged, tagged, methods=["scratch", "kd"], seeds=[0])
    hashes = []
    for seed, place in enumerate((lab, another)):
        torch.manual_seed(seed)
        published = timm.create_model("test_resnet", num_classes=CLASSES)
        monkeypatch.setattr("kdbench.models.pretrained._published", lambda *_, published=published: published)
        run(place, suite)
        teacher, *students = map(place.record, (*suite.teachers, *suite.trials))
        assert teacher.weights_sha256 == state_hash({f"body.{name}": value for name, value in published.state_dict().items()})
        assert [student.teacher_weights_sha256 for student in students] == [None, teacher.weights_sha256]
        assert {student.start_weights_sha256 for student in students} == {teacher.weights_sha256}
        hashes.append(teacher.weights_sha256)
    assert hashes[0] != hashes[1]


def test_a_teacher_as_expected_and_better_than_one_class_is_not_warned_of(write, lab, folder, monkeypatch):
    weights = {**OWN, "weights": str(folder / "own.pth")}
    suite = write(weights, "resnet8", methods=["kd"])
    run(lab, suite)
    measured = lab.record(suite.teachers[0]).test_error_pct
    assert measured is not None
    image = 100 / (4 * CLASSES)  # of those in `photos/test/`
    for expected, one_class, warned in ((measured + 1.4 * image, measured + 1, False), (measured + 1.6 * image, measured, True)):
        monkeypatch.setattr(ImageCounts, "one_class_error_pct", one_class)
        suite = write({**weights, "expected_error_pct": expected}, "resnet8", methods=["kd"], seeds=[0])
        lines = run(lab, suite, rerun=Rerun.ALL)
        before = lines[: next(place for place, line in enumerate(lines) if line.startswith("done kd"))]
        for words in (f"{expected:g} % is expected", f"no better than always answering one class ({one_class:.2f} %)"):
            assert any(line.startswith("warning: the teacher") and words in line for line in before) == warned


def test_a_teacher_that_was_never_trained_is_no_row_of_its_own_student(write, lab, folder):
    weights = {**OWN, "weights": str(folder / "own.pth")}
    run(lab, write(weights, weights))
    assert set(load_results(lab.store.root)["method"]) == {"pretrained", "scratch", "kd"}
    assert set(compare(load_results(lab.store.root)).results["method"]) == {"scratch", "kd"}


def test_what_remains_beside_a_teacher_that_is_used_as_it_is_is_estimated(write, lab, folder):
    teacher = {**OWN, "weights": str(folder / "own.pth")}
    run(lab, write(teacher, "resnet8", methods=["kd"], seeds=[0]))
    (found,) = costs(lab.plan(write(teacher, "resnet8", methods=["kd"], seeds=[0, 1])), lab.store)
    assert (found.students, found.teachers, found.measured) == (1, 0, 1)
    assert found.bases == {Basis.MEASURED: 1}


def test_a_done_teacher_needs_its_file_no_more_to_be_read(write, lab, folder, monkeypatch):
    suite = write({**OWN, "weights": str(folder / "own.pth")}, "resnet8", methods=["kd"])
    run(lab, suite)

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("kdbench.training.builder.fetch", never)
    more = write({**OWN, "weights": str(folder / "own.pth")}, "resnet8", methods=["kd"], seeds=[1])
    assert lab.run(more)


def test_a_lost_teacher_that_is_used_as_it_is_is_adopted_again_wherever_it_was(write, lab, folder):
    """A copy of its file is the same on every machine, unlike what is trained anew."""
    teacher = {**OWN, "weights": str(folder / "own.pth")}
    suite = write(teacher, "resnet8", methods=["kd"], seeds=[0])
    run(lab, suite)
    for trial in (*suite.teachers, *suite.trials):
        record = json.loads(lab.file(trial).read_text())
        lab.file(trial).write_text(json.dumps({**record, "environment": {**record["environment"], "device": "elsewhere"}}))
    lab.file(suite.teachers[0], "weights.safetensors").unlink()
    assert lab.run(write(teacher, "resnet8", methods=["kd"], seeds=[0, 1]))
    assert {planned.status.value for planned in lab.plan(suite).students} == {"done"}


def test_students_of_one_seed_start_alike_with_their_new_classifier(write, folder, lab):
    suite = write(RESNET, {"model": RESNET, "weights": str(folder / "seven.pth")})
    builder = lab.builder(suite)
    first, second = (builder.student(trial) for trial in suite.trials)
    assert state_hash(first.state_dict()) == state_hash(second.state_dict())
    assert torch.equal(first.body.layer1[0].conv1.weight, state_of(classes=7)["layer1.0.conv1.weight"])


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        (
            {"model": RESNET, "weights": "seven.pth"},
            RESNET,
            "weights {folder}/seven.pth of torchvision/resnet18: they are for 7 classes",
        ),
        ({"model": "torchvision/resnet34", "weights": "teacher.pth"}, RESNET, "they do not fit the network: 80 missing"),
        (
            RESNET,
            {"model": "resnet8", "weights": "teacher.pth"},
            "weights {folder}/teacher.pth of resnet8: they do not fit the network: ",
        ),
        (
            {"model": RESNET, "hooks": ["layer9"]},
            RESNET,
            "torchvision/resnet18, hooks: there is no module 'layer9'. The nearest: layer4",
        ),
        (RESNET, "torchvision/vit_b_16", "torchvision/vit_b_16 cannot take images of 3x32x32 ("),
        (
            "torchvision/densenet121",
            RESNET,
            "torchvision/densenet121 -> torchvision/resnet18: ofd: it needs the pre-activations of both networks; choose a student "
            "and a teacher that give them. Leave the method out with `without: [ofd]`.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(teacher, student, message, write, lab, folder):
    teacher, student = (
        {**given, "weights": str(folder / given["weights"])} if isinstance(given, dict) and "weights" in given else given
        for given in (teacher, student)
    )
    assert message.format(folder=folder) in refusal(run, lab, write(teacher, student, methods=["kd", "ofd"]))
    assert not list(lab.store.root.glob("trials/*"))


def test_a_teacher_that_raises_is_a_failed_trial_and_harms_no_other_pair(write, lab, folder, request):
    class Pool(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.device.type != "meta":  # on which networks are looked at before anything starts
                raise RuntimeError("no such kernel")
            return images.mean((2, 3))

    request.addfinalizer(MODELS.snapshot())

    @register_model("raises")
    def raises(*, num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(in_channels, 4, 3), Pool(), nn.Linear(4, num_classes))

    weights = lab.root / "raises.pth"
    torch.save(raises(num_classes=CLASSES, in_channels=3).state_dict(), weights)
    pairs = [
        {"teacher": {"model": "raises", "hooks": ["0"], "weights": str(weights)}, "student": "resnet8"},
        {"teacher": {**OWN, "weights": str(folder / "own.pth")}, "student": "resnet8"},
    ]
    suite = write(None, None, pairs=pairs, methods=["kd"])
    lines = run(lab, suite)
    bad, _ = suite.teachers
    assert (lab.record(bad).status, lab.record(bad).reason) == ("failed", "RuntimeError: no such kernel")
    assert f"the teacher {bad.label} has failed: its students are left for another run." in lines
    assert [lab.store.record(trial.id) is not None for trial in suite.trials] == [False, True]
    assert run(lab, suite)[1:] == [f"the teacher {bad.label} has failed: its students are left for another run."], (
        "as it is no more tried"
    )


def test_a_refused_teacher_costs_no_result(write, lab, folder):
    """Not even where everything is to be trained anew."""
    run(lab, write(OWN, "resnet8", methods=["scratch"]))
    before = lab.outcomes()
    teacher = {**OWN, "weights": str(folder / "own_seven.pth")}
    assert "they are for 7 classes" in refusal(run, lab, write(teacher, "resnet8"), rerun=Rerun.ALL)
    assert lab.outcomes() == before


def test_weights_for_images_that_are_normalised_otherwise_are_noted(write, lab, monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state_of(classes=1000))
    student = {"model": RESNET, "weights": "IMAGENET1K_V1"}
    suite = write(RESNET, student, methods=["scratch"])
    run(lab, suite)
    notes = lab.record(suite.trials[0]).notes
    assert len(notes) == 2
    assert notes[1].startswith(
        f"the weights of {RESNET} (IMAGENET1K_V1) are meant for images of mean 0.485, 0.456, 0.406 and std 0.229, "
    )


def test_one_teacher_has_one_expectation(write, folder):
    weights = {"model": RESNET, "weights": str(folder / "teacher.pth")}
    pairs = [
        {"teacher": {**weights, "expected_error_pct": error}, "student": student}
        for error, student in ((7, "resnet8"), (8, "resnet14"))
    ]
    assert "pairs[1].teacher.expected_error_pct: another pair expects 7 % of this teacher. Give one value." in refusal(
        write, RESNET, RESNET, pairs=pairs
    )


def test_a_trials_code_knows_nothing_of_weights(write, folder):
    suite = write({"model": RESNET, "weights": str(folder / "teacher.pth")}, RESNET)
    assert trial_code(suite.teachers[0]) == trial_code(
        write({"model": RESNET, "weights": str(folder / "other.pth")}, RESNET).teachers[0]
    )
