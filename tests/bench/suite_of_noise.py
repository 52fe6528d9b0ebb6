"""A suite on images of noise, run in this process, and what is seen of it from outside: when epochs ended, and what was said."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from kdbench.results.store import Store
from kdbench.runner.engines import Place
from kdbench.runner.progress import EpochReport, Silent
from kdbench.runner.run import Options, execute
from kdbench.spec.record import PROTOCOL, Record
from kdbench.suite.plugins import load_plugins, load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.suite import Suite
from kdbench.training.segments import Position
from kdbench.training.stream import Load, Stream

PLUGIN = Path(__file__).with_name("noise.py")

PARAPHRASER = {"paraphraser_epochs": 1, "paraphraser_lr": 0.001}
"""In few steps on noise it diverges at the usual rate."""

ROW: tuple[Any, ...] = (
    *("scratch", "kd", "fitnets_hint", "at", {"ft": PARAPHRASER}),
    *("at+kd", {"ft+kd": {"ft": PARAPHRASER}}),
)
"""The seven methods of the row."""

OTHERS: tuple[Any, ...] = (
    *("kd_standardized", {"dkd": {"warm_up_epochs": 0}}, "dist", {"ft_repdistiller": PARAPHRASER}, "nst", "sp", "cc"),
    *("rkd", "pkt", "vid", "ofd", {"reviewkd": {"warm_up_epochs": 0}}, "simkd"),
)
"""Thirteen more."""

REST: tuple[Any, ...] = (
    *("label_smoothing", "tfkd_reg", "pskd", "byot", "normkd", "eakd", {"ctkd": {"reversal_epochs": 1}}, "ttm", "wsld", "nkd"),
    *("skd", {"rld": {"warm_up_epochs": 0}}, {"sdd": {"warm_up_epochs": 0}}, "mlkd", "mlkd_noaug", "crld", "ofa"),
    *({"wkd_l": {"decay_after": 1}}, {"dml": {"peer": "resnet8"}}, {"ffl": {"peer": "resnet8"}}, {"fitnets": {"hint_epochs": 1}}),
    *({"ab": {"stage_epochs": 1}}, {"fsp": {"stage_epochs": 1}}, {"sskd": {"ssp_epochs": 1}}, {"wkd_f": {"decay_after": 1}}),
    *("afd", "semckd", "srrl", "pefd", "ickd", "catkd", "mgd", "norm", {"kdpp": {"warm_up_epochs": 0}}, "rsd", "irg", "crd"),
    "itrd",
)
"""All others that this pair can have; `deit` asks for a token, `dgkd` for several teachers."""


@dataclass(frozen=True)
class NoiseSuite:
    """What is trained.

    Attributes:
        students: each is trained by every method.
        recipe: keys of the students' recipe beside epochs, batch size and rate.
        images: to train on.
        epochs: the first one warms up, records graphs and compiles, the last one is timed.
        data: the `dataset` of a suite in the place of noise.
    """

    methods: Sequence[Any] = ROW
    recipe: dict[str, Any] = field(default_factory=dict)
    images: int = 50_000
    batch_size: int = 128
    epochs: int = 2
    teacher: str = "resnet56"
    students: Sequence[Any] = ("resnet20",)
    seeds: tuple[int, ...] = (0,)
    data: dict[str, Any] | None = None

    def write(self, file: Path) -> Path:
        """As YAML. The teacher's recipe is always the same, so that suites in one results directory share it."""
        off: dict[str, Any] = {key: False for key in ("compile", "stack") if key in self.recipe}
        teacher: dict[str, Any] = {"epochs": 1, "precision": "default", **off}
        tree = {
            "title": "Noise",
            "plugins": [str(PLUGIN)],
            "dataset": self.data or {"name": "noise", "images": self.images},
            "recipe": {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "optimiser": {"lr": 0.001},  # on noise, some methods diverge at the usual 0.1
                "evaluate_every": self.epochs,
                **self.recipe,
            },
            "teacher": {"recipe": {**teacher, "evaluate_every": 1}},
            "seeds": [*self.seeds],
            "methods": [*self.methods],
            "pairs": [{"teacher": self.teacher, "student": student} for student in self.students],
        }
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        return file


class Clock(Silent):
    """Notes when what happened.

    Attributes:
        ends: of each epoch of the students' main training, when it ended.
        said: the lines for people.
        students: the records of the suite's own trials.
    """

    def __init__(self, suite: Suite, store: Store) -> None:
        super().__init__()
        self._store, self._trials = store, {trial.id for trial in suite.trials}
        self.ends: dict[int, float] = {}
        self.said: list[str] = []
        self.students: list[Record] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def epoch(self, report: EpochReport, place: Place | None = None) -> None:
        if report.main and not any(lane.name.startswith("teacher ") for lane in report.lanes):
            self.ends[report.epoch] = time.perf_counter()

    def recorded(self, record: Record) -> None:
        if record.trial in self._trials:
            self.students.append(record)

    def curves(self, record: Record) -> str:
        """Of what ended: a line of JSON for each epoch."""
        return (self._store.folder(record.trial) / "curves.jsonl").read_text()

    @property
    def failed(self) -> dict[str, str]:
        """Why students failed, by the names of their methods; of several of a method, how many did, and why the last one."""
        failed = [record for record in self.students if record.status == "failed"]
        times = Counter(record.method for record in failed)
        return {
            one.method: f"{times[one.method]} students, the last one: {one.reason}" if times[one.method] > 1 else str(one.reason)
            for one in failed
        }

    @property
    def began(self) -> float:
        """When the last epoch began."""
        return self.ends[max(self.ends) - 1]

    @property
    def ended(self) -> float:
        """When it ended."""
        return self.ends[max(self.ends)]


@dataclass
class Cut:
    """How epochs go in the block of `cut`.

    Attributes:
        second_step: when the second step of the last epoch began, by `time.perf_counter`; the first runs without a graph.
    """

    second_step: float = math.nan


@contextmanager
def cut(*, warm_up: int, latest: float) -> Iterator[Cut]:
    """In the block the first epoch of each training has so many batches, and a later one ends at `latest` of `time.perf_counter`.

    No epoch has fewer than `warm_up`, unless there are no more.
    """
    whole, found = Stream.batches, Cut()

    def batches(stream: Stream, now: Position, views: Sequence[str]) -> Iterator[Load]:
        for number, load in enumerate(whole(stream, now, views)):
            if number >= warm_up and (now.epoch == 0 or time.perf_counter() > latest):
                return
            if number == 1:
                if stream.data.device.type == "cuda":
                    torch.cuda.synchronize()
                found.second_step = time.perf_counter()
            yield load

    with patch.object(Stream, "batches", batches):
        yield found


def train(suite: NoiseSuite, results: Path, **options: Any) -> Clock:
    """Run it to its end, whatever fails in it."""
    load_shipped()
    load_plugins([PLUGIN])
    results.mkdir(parents=True, exist_ok=True)
    store = Store(results, protocol=PROTOCOL)
    loaded = load_suite(suite.write(results / "noise.yaml"))
    clock = Clock(loaded, store)
    assert execute(loaded, store, options=Options(**options), progress=clock)
    return clock
