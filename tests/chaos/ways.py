"""Random suites, each trained in two ways that must end in the same bits: `python tests/chaos/ways.py --suites 100`.

The plain way is all students at once, in one process, without graphs. The other way is drawn: two workers, fewer students at once,
a stop after every epoch, rehearsed CUDA graphs, a part of the methods in another order, or several of these. Each suite is a
number, and `--from 17 --suites 1` tries the one of that number again. It prints one line of JSON for each suite, and ends with
status 1 where two ways differed. With `MALLOC_PERTURB_=1` in the environment, memory that nobody has written holds huge numbers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import pytest
import test_graphs
import torch
from conftest import Lab, Outcomes, Rehearsed, write_images
from invariants import odd_methods
from invariants.everything import refusals
from invariants.probes import SHORT
from test_streaming import write_photographs

from kdbench import Method
from kdbench.errors import KdbenchError, first_line
from kdbench.method.interface import METHODS
from kdbench.suite.suite import Suite
from kdbench.training import graphs

KINDS = [
    *(test_graphs.Draws, test_graphs.Replaces, test_graphs.WarmsUp, test_graphs.WarmsUpByTensors, test_graphs.Anneals),
    test_graphs.AsksForGradients,
]
NETWORKS = ["resnet8", "resnet14", "wrn_10_1", "vgg8", "mobilenetv2_half", "shufflenetv1"]
OTHERS = ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit", "torchvision/mobilenet_v3_small"]
"""For colour images alone."""

ODD: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "careless": (odd_methods.Careless, {}),
    **{f"faulty_{at.split()[0]}": (odd_methods.Faulty, {"at": at}) for at in ("lesson", "hint", "losses", "nan in main")},
    **{kind.__name__.lower(): (kind, {}) for kind in KINDS},
}
"""Methods that draw, raise, diverge, or write into what all are given; only where one process trains."""

ALONE = ["kd", "at", "sp", "dkd", "cc"]
"""Methods of which two are added."""


def drawn_recipe(draw: random.Random) -> dict[str, Any]:
    """Any recipe that trains in a second or two."""

    def maybe(share: float, **keys: Any) -> dict[str, Any]:
        return keys if draw.random() < share else {}

    epochs = draw.choice([1, 2, 2, 3])
    sgd: dict[str, Any] = draw.choice([{"lr": 0.05}, {"lr": 0.05, "nesterov": True}, {"lr": 0.01, "momentum": 0}])
    optimiser: dict[str, Any] = draw.choice([sgd, sgd, {"name": "adamw", "lr": 0.003}])
    schedule: dict[str, Any] = draw.choice(
        [{"milestones": []}, {"milestones": [1]} if epochs > 1 else {}, {"name": "cosine", "update": "step"}]
    )
    distortion = {**maybe(0.2, random_erasing=0.5), **maybe(0.2, rand_augment={"name": "torchvision"})}
    return {
        "epochs": epochs,
        "batch_size": draw.choice([12, 18, 24, 32, 36, 71, 72, 100]),
        "optimiser": {**optimiser, **maybe(0.2, decay_norms_and_biases=False)},
        "schedule": {**schedule, **maybe(0.3 * (epochs > 1), warm_up_epochs=1)},
        "augmentation": {"pad": draw.choice([0, 1]), **distortion},
        "precision": draw.choice(["default", "default", "fp32", "bf16"]),
        "stack": draw.random() < 0.3,
        "evaluate_every": draw.choice([1, 1, 2]),
        **maybe(0.2, label_smoothing=0.1),
        **maybe(0.2, mixup=0.4),
        **maybe(0.2, cutmix=1.0),
        **maybe(0.3, gradient_clipping=0.5),
        **maybe(0.3, moving_average=0.9),
        **maybe(0.2, method_lr=3.0),
        **maybe(0.2, method_weight_decay=0.0),
    }


def drawn_suite(draw: random.Random, *, odd: bool) -> dict[str, Any]:
    """Any suite of a few students."""
    methods = {name: SHORT[name] for name in draw.sample(sorted(SHORT), draw.randint(1, 4))}
    if draw.random() < 0.2:
        methods["ft"] = SHORT["ft"]
    if odd:
        methods |= {name: ODD[name][1] for name in draw.sample(sorted(ODD), draw.choice([0, 0, 1, 2]))}
    if draw.random() < 0.3:
        methods["+".join(sorted(draw.sample(ALONE, 2)))] = {}
    size, channels = draw.choice([8, 8, 12, 16]), draw.choice([1, 3])
    part = draw.choice([{}, {}, {"validation": 0.25}, {"train_images": 36}])
    data = {"name": "imagefolder", "label": "stripes", "size": size, "channels": channels, **part}
    recipe = drawn_recipe(draw)
    if draw.random() < 0.2:
        data |= {"name": "imagestream", "label": "photographs", "root": "", "size": 16, "channels": 3, "workers": 0}
        recipe["augmentation"] |= {"pad": 0, "resized_crop": {}}
    networks = NETWORKS + OTHERS * (data["channels"] == 3)
    student, assistant, first = (draw.choice(networks) for _ in range(3))
    recipe["stack"] = recipe["stack"] and student in NETWORKS[:-1]
    if "mobilenetv2_half" in (student, assistant, first):
        recipe["precision"] = "default"  # it is refused in bf16, for small images or where it is stacked
    teacher: Any = first
    if draw.random() < 0.2:
        teacher = {"model": assistant, "method": "kd", "teacher": first}
    if draw.random() < 0.15 and assistant != first:
        teacher, methods = [first, teacher if teacher != first else assistant], {"dgkd": SHORT["dgkd"], "scratch": {}}
    return {
        "dataset": data,
        "stages": draw.choice(["per-seed", "per-teacher"]),
        "keep_students": draw.random() < 0.2,
        "recipe": recipe,
        "methods": [{name: params} for name, params in methods.items()],
        "seeds": draw.choice([[0], [0], [0, 1], [5]]),
        "pairs": [{"teacher": teacher, "student": student}],
    }


def written(lab: Lab, tree: dict[str, Any]) -> Suite:
    """The suite; seeds may share stages of the teacher, which is refused where there are none."""
    parts = [part for entry in tree["methods"] for name in entry for part in name.split("+")]
    staged = any(METHODS.get(part).teacher_stages for part in parts)
    keys = {key: value for key, value in tree.items() if key != "stages" or staged}
    if "root" in tree["dataset"]:
        keys["dataset"] = {**tree["dataset"], "root": str(lab.images.parent / "photographs")}
    return lab.suite(**keys)


def train(lab: Lab, tree: dict[str, Any], way: dict[str, Any]) -> Outcomes:
    """All that a suite comes to in a way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("kdbench.training.evaluation.TIMED_PASSES", 1)
        options: dict[str, Any] = {"lanes": way.get("lanes", 0), "device": way.get("device", "cpu")}
        if "graphs" in way:
            patch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: True)
            patch.setattr(graphs, "Graph", Rehearsed)
            patch.setattr(graphs, "TIMED", 1)
        if "stops" in way:
            ticks = itertools.count()
            patch.setattr("kdbench.runner.run.time", SimpleNamespace(monotonic=lambda: next(ticks)))
            options["stop_after_s"] = 1.5
        suite = written(lab, tree)
        for _ in range(100):
            if lab.run(suite, **options):
                return lab.outcomes()
    raise AssertionError("it never ends")


def drawn_way(draw: random.Random) -> dict[str, Any]:
    """How it is trained for the second time."""
    if draw.random() < 0.1:
        return {"device": "cpu:2"}
    ways: list[dict[str, Any]] = [{"graphs": True}, {"lanes": draw.choice([1, 2])}, {"stops": True}, {"part": True}, {"workers": 2}]
    return {key: value for way in draw.sample(ways, draw.randint(1, 3)) for key, value in way.items()}


def tried(number: int, folder: Path, images: Path) -> dict[str, Any]:
    """What became of a suite."""
    draw = random.Random(number)
    way = drawn_way(draw)
    tree = drawn_suite(draw, odd="device" not in way)
    labs = [Lab(folder / name, images) for name in ("plain", "other")]
    for lab in labs:
        lab.root.mkdir(parents=True)
    try:
        unfit = refusals(labs[0], written(labs[0], tree))
        tree["methods"] = [entry for entry in tree["methods"] if not entry.keys() & unfit.keys()]
        plain = train(labs[0], tree, {})
    except KdbenchError as refusal:
        return {"suite": number, "refused": first_line(refusal)}
    part = draw.sample(tree["methods"], max(1, len(tree["methods"]) - 1)) if "part" in way else tree["methods"]
    data = {**tree["dataset"], "workers": way["workers"]} if "workers" in way and "workers" in tree["dataset"] else tree["dataset"]
    other = train(labs[1], {**tree, "methods": part, "dataset": data}, way)
    different = [trial for trial in other if other[trial] != plain.get(trial)]
    statuses = Counter(json.loads(rows[0])["status"] for rows in plain.values())
    return {"suite": number, "way": way, "trials": dict(statuses), "different": different}


def main() -> int:
    """Try suites until they are done or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the number of the first suite")
    parser.add_argument("--suites", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60, help="begin none later than that")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, (kind, _) in ODD.items():
        METHODS.register(name)(kind)
    latest, failed = time.monotonic() + 60 * given.minutes, False
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / "images")
        write_photographs(Path(folder) / "photographs")
        for number in range(given.first, given.first + given.suites):
            if time.monotonic() > latest:
                break
            here = Path(folder) / str(number)
            try:
                found = tried(number, here, images)
            except Exception as problem:  # whatever it is, it is what is looked for
                found = {"suite": number, "different": f"{type(problem).__name__}: {first_line(problem)}"}
            failed = failed or bool(found.get("different"))
            print(json.dumps(found), flush=True)
            shutil.rmtree(here, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
