"""A tiny suite that trains in a fraction of a second, for the tests of the engine."""

import itertools
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kdbench.method.interface import METHODS, Method
from kdbench.models import MODELS, Network
from kdbench.results.store import Store
from kdbench.runner.plan import Plan, make_plan
from kdbench.runner.progress import Silent
from kdbench.runner.run import Options, execute
from kdbench.signals import STOPS
from kdbench.spec.record import PROTOCOL, Record
from kdbench.spec.trial import TrialSpec
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.suite import Suite
from kdbench.training import cohort, graphs
from kdbench.training.builder import Builder
from kdbench.training.lane import Lane
from kdbench.training.segments import Position

load_shipped()

pytest_plugins = ["invariants.everything"]

CLASSES, TRAIN_IMAGES, TEST_IMAGES = 3, 72, 30
TINY: dict[str, Any] = {
    "title": "Tiny",
    "dataset": {"name": "imagefolder", "label": "stripes", "size": 8, "channels": 1},
    "recipe": {
        "epochs": 2,
        "batch_size": 32,  # batches of 32, 32 and 8
        "optimiser": {"lr": 0.05},
        "schedule": {"milestones": [1]},
        "augmentation": {"pad": 1},
    },
    "seeds": [0],
    "methods": ["scratch", "kd"],
    "pairs": [{"teacher": "wrn_10_1", "student": "resnet8"}],
}

OWN = ". One of your own needs its file: --plugin FILE, `plugins: [FILE]` in the suite, or plugins=[FILE] in Python."
"""Ends every message on an unknown name."""

Outcomes = dict[str, list[str]]


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """As from a terminal, and as before in the end: nohup, and a shell in the background, have some signals ignored."""
    before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGALRM)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass(frozen=True)
class Lab:
    """A results directory, and tiny suites that are written and run beside it."""

    root: Path
    images: Path

    @property
    def store(self) -> Store:
        return Store(self.root / "results", protocol=PROTOCOL)

    def write(self, **changes: Any) -> Path:
        """The YAML of the tiny suite with other values; mappings are merged."""
        tree = {key: {**value, **changes.pop(key, {})} if isinstance(value, dict) else value for key, value in TINY.items()}
        tree["dataset"].setdefault("root", str(self.images))
        file = self.root / "tiny.yaml"
        file.write_text(yaml.safe_dump({**tree, **changes}))
        return file

    def suite(self, **changes: Any) -> Suite:
        return load_suite(self.write(**changes))

    def run(self, suite: Suite, **options: Any) -> bool:
        return execute(suite, self.store, options=Options(**{"device": "cpu", **options}), progress=Silent())

    def plan(self, suite: Suite) -> Plan:
        return make_plan(suite, self.store)

    def builder(self, suite: Suite) -> Builder:
        source, params = suite.source
        return Builder(source(params, cache=self.store.cache).load(), params, torch.device("cpu"))

    def file(self, trial: TrialSpec, name: str = "record.json") -> Path:
        return self.store.folder(trial.id) / name

    def record(self, trial: TrialSpec) -> Record:
        return Record.model_validate_json(self.file(trial).read_bytes())

    def curves(self, trial: TrialSpec) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file(trial, "curves.jsonl").read_text().splitlines()]

    def outcomes(self, suite: Suite | None = None) -> Outcomes:
        """By trial, its record and its curves without what was measured: all that must be the same, bit for bit."""
        wanted = {trial.id for trial in (*suite.teachers, *suite.trials)} if suite else None
        return {
            file.parent.name: outcome(file)
            for file in sorted(self.store.root.glob("trials/*/record.json"))
            if wanted is None or file.parent.name in wanted
        }


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def outcome(file: Path) -> list[str]:
    """Of one `record.json`, its curves and its outcomes, as text, in which NaN equals itself."""
    record = Record.model_validate_json(file.read_bytes()).model_dump(exclude=set(Record.MEASURED))
    rows = [json.loads(line) for line in file.with_name("curves.jsonl").read_text().splitlines()]
    record["outcomes"] = kept.read_bytes().hex() if (kept := file.with_name("outcomes.npz")).exists() else None
    return [json.dumps(record), *(json.dumps({k: v for k, v in row.items() if not k.endswith("_s")}) for row in rows)]


def write_images(root: Path, *, seed: int = 0) -> Path:
    """Grey 8x8 images of stripes at one of three places, in noise that makes them hard."""
    random = np.random.default_rng(seed)
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        for label in range(CLASSES):
            folder = root / split / f"at{label}"
            folder.mkdir(parents=True)
            for i in range(count // CLASSES):
                pixels = random.integers(0, 150, (8, 8))
                pixels[:, 2 * label + 1] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return root


@pytest.fixture(autouse=True)
def _own_files_are_forgotten() -> Iterator[None]:
    """What users' own files a test loads, later tests would send to their workers, where the files are gone."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("kdbench_plugin_"):
            del sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_waited_for() -> Iterator[None]:
    """Files are not forced onto the disk, since no test cuts the power, and the speed of inference is measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("kdbench.training.evaluation.TIMED_PASSES", 1)
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, train/ and test/."""
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


@pytest.fixture
def lab(tmp_path: Path, images: Path) -> Lab:
    """A lab with nothing in it."""
    return Lab(tmp_path, images)


@pytest.fixture
def another(tmp_path: Path, images: Path) -> Lab:
    """A second lab, to run in another way what must come out the same."""
    (tmp_path / "another").mkdir()
    return Lab(tmp_path / "another", images)


MIXED: dict[str, Any] = {
    "methods": [
        "scratch",
        "kd",
        {"fitnets": {"hint_epochs": 2}},
        {"ft": {"paraphraser_epochs": 2}},
        {"crd+kd": {"crd": {"negatives": 64}}},
    ],
    "recipe": {**TINY["recipe"], "epochs": 3},
    "teacher": {"recipe": {"epochs": 2}},
}
"""Lanes without a stage, with one of the student's, with one of the teacher's; and a composition with draws and buffers."""


@pytest.fixture(scope="session")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab in which the suite `MIXED` ran from start to end. Read it, copy it, leave it as it is."""
    lab = Lab(tmp_path_factory.mktemp("undisturbed"), images)
    assert lab.run(lab.suite(**MIXED))
    return lab


@pytest.fixture
def finished(lab: Lab, undisturbed: Lab) -> Lab:
    """A lab of one's own in which `MIXED` is done."""
    shutil.copytree(undisturbed.store.root, lab.store.root)
    return lab


@pytest.fixture
def one_epoch_a_run(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options with which a run stops after one epoch: a clock that ticks whenever it is read."""
    ticks = itertools.count()
    monkeypatch.setattr("kdbench.runner.run.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    return {"stop_after_s": 1.5}


MemoryFor = Callable[[Callable[[Position], int]], None]


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> MemoryFor:
    """Lets the device hold, in each epoch, so many lanes and no more."""
    original = cohort._epoch

    def limit(most: Callable[[Position], int]) -> None:
        def limited(now: Position, lanes: Sequence[Lane], *rest: Any, **options: Any) -> None:
            if len(lanes) > most(now):
                raise torch.OutOfMemoryError("on purpose")
            original(now, lanes, *rest, **options)

        monkeypatch.setattr(cohort, "_epoch", limited)

    return limit


@pytest.fixture
def register() -> Iterator[Callable[[str, type[Method]], None]]:
    """Adds methods that last as long as the test."""

    def add(name: str, method: type[Method]) -> None:
        METHODS.register(name)(method)

    restore = METHODS.snapshot()
    yield add
    restore()


@pytest.fixture
def register_network() -> Iterator[Callable[[str, type[Network]], None]]:
    """Adds networks that last as long as the test."""

    def add(name: str, network: type[Network]) -> None:
        MODELS.register(name)(network)

    restore = MODELS.snapshot()
    yield add
    restore()


class Rehearsed(graphs.Graph):
    """Stands for a graph where there is no CUDA."""

    made = 0
    recording = False

    def __init__(self, work: Callable[[], None], stream: None) -> None:
        Rehearsed.made += 1
        Rehearsed.recording = True
        try:
            work()
        finally:
            Rehearsed.recording = False
        self._work = work

    def replay(self) -> None:
        self._work()

    def launch(self) -> None:
        self._work()

    def join(self) -> None:
        return


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: True)
    monkeypatch.setattr(graphs, "Graph", Rehearsed)
    Rehearsed.made = 0
