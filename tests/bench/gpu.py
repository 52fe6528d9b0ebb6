"""Figures of a GPU, one JSON object a line as each is measured: `python tests/bench/gpu.py row lanes wide`.

Parts, by worth:
  row      the seven methods in fp32, the default arithmetic, bf16, and bf16 stacked, between three measurements of the plain loop
  lanes    one method: alone, also in bf16, and 7, 14 and 28 students of it at once
  wide     twenty methods, then all others, and what each takes by itself
  opt_in   the row stacked, compiled and stacked in bf16, and compiled
  workers  two workers on one GPU against one process, two seeds of three methods

What is timed is one whole epoch through the same code as `kdbench run`, without evaluation: 391 steps of batch 128 for a row, 50
for the others. `ms_per_graph` leaves out the first step of an epoch, which runs without a graph and measures the balance of the
losses. Before it comes a warm-up of 20 steps, in which graphs are recorded and compilers compile; the teacher trains for 20 steps,
too. The plain loop is the field's: `cudnn.benchmark`, torch's own precision, batches of 128; each time 20 steps of
each method are timed, after 20 that are not, in which its workers become busy.

`--seconds 100` ends by then: an epoch under way is cut, which `steps` tells, and what cannot begin is named as left out. Each row
says before it starts how long it should take, by what was measured on an H200 on 2026-11-28.
What raises, and lanes that fail, are told in their row, which costs no other one; the script then ends with an error.
`--rehearse` does all of it in small, for a CPU, where neither guesses nor figures mean anything.
"""

import argparse
import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import torch
from plain import plain_ms
from suite_of_noise import OTHERS, REST, ROW, NoiseSuite, cut, train

from kdbench.errors import first_line
from kdbench.runner.engines import Place
from kdbench.training.device import choose_device, environment

ARITHMETIC: dict[str, dict[str, Any]] = {
    "default": {},
    "bf16": {"precision": "bf16"},
    "bf16, stacked": {"precision": "bf16", "stack": True},
    "fp32": {"precision": "fp32"},
    "stacked": {"stack": True},
    "bf16, compiled, stacked": {"precision": "bf16", "compile": True, "stack": True},
    "compiled": {"compile": True},
}

MS = {"default": 13.2, "bf16": 10.2, "bf16, stacked": 8.7, "fp32": 28.2, "stacked": 14.3}
MS |= {"bf16, compiled, stacked": 8.0, "compiled": 12.0}
"""A step of the row: measured on an H200 on 2026-11-28, but for the compiled ones, which are guesses."""

WIDE_MS = 49.0
"""A step of twenty methods."""

PLAIN_S, FIRST_PLAIN_S = 9.0, 22.0
"""The plain loop's seven methods, 40 steps each, and its workers' start; at first also a process, and the choice of kernels."""

RECORD_S, BEGIN_S, COMPILE_S = 0.4, 3.0, 40.0
"""What a lane takes beside its steps, for its graph and its record; what a row takes for planning and its first kernels; and what
compiling takes. They fit what was measured then."""


@dataclass(frozen=True)
class Bench:
    """What is measured on, and where figures go.

    Attributes:
        suite: of the row, on all images.
        short: images of the parts that need no whole epoch.
        fewest: of those that are not there for their speed.
        warm_up: steps before what is timed.
        plain_batches: of the plain loop that are timed, after as many that are not.
        lanes: how many students at once.
        latest: by `time.perf_counter`, when to end.
        speed: how fast guesses are taken to be; infinite where they mean nothing.
        broken: what raised or failed.
    """

    device: torch.device
    folder: Path
    out: Path
    suite: NoiseSuite
    short: int
    fewest: int
    warm_up: int
    plain_batches: int
    workers: int
    lanes: tuple[int, ...]
    latest: float
    speed: float
    broken: list[str] = field(default_factory=list)

    def tell(self, part: str, **found: Any) -> None:
        """Print and keep a figure."""
        line = json.dumps({"part": part, **found})
        print(line, flush=True)
        with self.out.open("a") as file:
            file.write(f"{line}\n")

    def begins(self, part: str, *, needs_s: float, takes_s: float, **about: Any) -> bool:
        """Whether there is time for what takes so long, and cannot be cut below what it needs; it says so."""
        left = self.latest - time.perf_counter()
        print(f"-- {part} {about}: about {takes_s / self.speed:.0f} s by estimate, {left:.0f} s left", flush=True)
        if left < needs_s / self.speed:
            self.tell(part, **about, left_out=f"{left:.0f} s are left")
            return False
        return True

    @contextmanager
    def told(self, part: str, **about: Any) -> Iterator[None]:
        """What raises in the block is told, and goes no further."""
        try:
            yield
        except Exception as problem:  # whatever it is, the other figures are worth having
            traceback.print_exc()
            self.broken.append(part)
            self.tell(part, **about, error=f"{type(problem).__name__}: {first_line(problem)}")

    def measure(self, part: str, suite: NoiseSuite, *, ms: float, startup_s: float = BEGIN_S, **about: Any) -> None:
        """One row, and all that is known of it.

        Args:
            ms: that a step should take.
            startup_s: seconds that the first kernels should take.
        """
        lanes = len(suite.methods) * len(suite.seeds)
        needs_s = startup_s + RECORD_S * lanes + ms * self.warm_up / 1000
        takes_s = needs_s + ms * suite.images / suite.batch_size / 1000
        if self.begins(part, needs_s=needs_s, takes_s=takes_s, **about, lanes=lanes):
            with self.told(part, **about, lanes=lanes):
                self._measure(part, suite, takes_s=takes_s, **about)

    def _measure(self, part: str, suite: NoiseSuite, *, takes_s: float, **about: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        with cut(warm_up=self.warm_up, latest=self.latest) as epoch:
            clock = train(suite, self.folder / f"{part} of {suite.images}", device=str(self.device))  # a folder has one data set
        own = {record.setting or record.method: record for record in clock.students if record.status == "done"}
        if not own:
            raise RuntimeError(f"no lane came to its end: {clock.failed or clock.said}")
        self.broken.extend(f"{method} in {part}" for method in clock.failed)
        last = {name: json.loads(clock.curves(record).splitlines()[-1]) for name, record in own.items()}
        steps = -(-max(row["images"] for row in last.values()) // suite.batch_size)
        ended = clock.ended - sum(row.get("evaluation_s", 0.0) for row in last.values())

        def ms_of(seconds: float, steps: int = steps) -> float:
            return round(1000 * seconds / steps, 3)

        self.tell(
            part,
            **about,
            lanes=len(own),
            steps=steps,
            ms_per_step=ms_of(ended - clock.began),
            ms_per_step_and_lane=ms_of((ended - clock.began) / len(own)),
            ms_per_graph=ms_of(ended - epoch.second_step, steps - 1),
            own_ms={name: ms_of(row["train_s"] - row["data_s"] - row["teacher_s"]) for name, row in last.items()},
            data_ms=ms_of(max(row["data_s"] for row in last.values())),
            teacher_ms=ms_of(max(row["teacher_s"] for row in last.values())),
            mem_mib={name: round(record.peak_mem_mib or 0) for name, record in own.items()},
            reserved_mib=round(torch.cuda.max_memory_reserved() / 2**20) if self.device.type == "cuda" else None,
            without_graphs=[line for line in clock.said if "without CUDA graphs" in line],
            failed=clock.failed,
            startup_s=round(sum(record.startup_s or 0 for record in own.values()), 1),
            all_s=round(time.perf_counter() - began, 1),
            estimated_s=round(takes_s, 1),
        )

    def row(self, part: str, arithmetic: str, *, startup_s: float = BEGIN_S) -> None:
        """The seven methods."""
        suite = replace(self.suite, recipe=ARITHMETIC[arithmetic])
        self.measure(part, suite, ms=MS[arithmetic], startup_s=startup_s, side="kdbench", arithmetic=arithmetic)

    def plain(self, elsewhere: ProcessPoolExecutor, *, takes_s: float = PLAIN_S) -> None:
        """The row in the plain loop, in a process of its own: what kdbench sets for its process must not help it."""
        if not self.begins("row", side="plain loop", needs_s=takes_s, takes_s=takes_s):
            return
        with self.told("row", side="plain loop"):
            self._plain(elsewhere, takes_s=takes_s)

    def _plain(self, elsewhere: ProcessPoolExecutor, *, takes_s: float) -> None:
        began, suite, batches = time.perf_counter(), self.suite, self.plain_batches
        found = elsewhere.submit(plain_ms, suite, str(self.device), batches=batches, workers=self.workers, folder=self.folder)
        by_method = found.result()
        total = round(sum(by_method.values()), 3)
        seconds = {"all_s": round(time.perf_counter() - began, 1), "estimated_s": takes_s}
        self.tell("row", side="plain loop", steps=batches, ms_per_step=total, own_ms=by_method, workers=self.workers, **seconds)


def row(bench: Bench) -> None:
    """The seven methods, each kind of arithmetic once, the plain loop before, between and after."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
        bench.plain(elsewhere, takes_s=FIRST_PLAIN_S)
        bench.row("row", "default")
        bench.row("row", "bf16")
        bench.plain(elsewhere)
        bench.row("row", "bf16, stacked")
        bench.row("row", "fp32")
        bench.plain(elsewhere)


def opt_in(bench: Bench) -> None:
    """The row as it is on request alone."""
    bench.row("opt_in", "stacked")
    if bench.device.type == "cuda":  # on a CPU it would take minutes
        bench.row("opt_in", "bf16, compiled, stacked", startup_s=BEGIN_S + COMPILE_S)
        bench.row("opt_in", "compiled", startup_s=BEGIN_S + COMPILE_S)


def wide(bench: Bench) -> None:
    """Twenty methods, then all others in two halves, whose steps are fewer: whether each works there is the question."""
    half = len(REST) // 2
    for methods, images in (((*ROW, *OTHERS), bench.short), (REST[:half], bench.fewest), (REST[half:], bench.fewest)):
        suite = replace(bench.suite, methods=methods, images=images)
        bench.measure("wide", suite, ms=WIDE_MS * len(methods) / 20, arithmetic="default")


def lanes(bench: Bench) -> None:
    """KD at so many temperatures."""
    ms = MS["default"] / len(ROW)
    for count in bench.lanes:
        methods = tuple({"kd": {"temperature": 1 + number}} for number in range(count))
        suite = replace(bench.suite, methods=methods, images=bench.short, seeds=(count,))  # none was trained before
        bench.measure("lanes", suite, ms=count * ms, arithmetic="default")
    alone = replace(bench.suite, methods=("kd",), recipe=ARITHMETIC["bf16"], images=bench.short)
    bench.measure("lanes", alone, ms=ms, arithmetic="bf16")


def workers(bench: Bench) -> None:
    """Two seeds: one process with the lanes of a seed at once, against two workers on one device; with their starts."""
    suite = replace(bench.suite, methods=("scratch", "kd", "at"), seeds=(0, 1), images=bench.short)
    if not bench.begins("workers", needs_s=35.0, takes_s=35.0):  # a worker's start is most of it
        return
    with bench.told("workers"):
        _workers(bench, suite)


def _workers(bench: Bench, suite: NoiseSuite) -> None:
    train(replace(suite, methods=("kd",), seeds=(9,)), bench.folder / "before", device=str(bench.device))  # the teacher
    names = [f"{bench.device}, {number}" for number in "ab"]
    places = [Place(name, socket.gethostname(), str(bench.device), 1 if bench.device.type == "cpu" else None) for name in names]
    for side, engine in (("one process", "here"), ("two workers", "local")):
        results = Path(shutil.copytree(bench.folder / "before", bench.folder / side))
        with patch("kdbench.runner.engines.local.local_places", lambda text: places), MemoryUsed(bench.device) as memory:
            began = time.perf_counter()
            clock = train(suite, results, device=str(bench.device), engine=engine)
            seconds = time.perf_counter() - began
        bench.broken.extend(f"{method} in {side}" for method in clock.failed)
        bench.tell("workers", side=side, seconds=round(seconds, 1), device_mem_mib=memory.most_mib, failed=clock.failed)


class MemoryUsed:
    """The most of the device's memory that was in use in the block by all processes, as nvidia-smi tells it; None without it."""

    def __init__(self, device: torch.device) -> None:
        self.most_mib: int | None = None
        self._command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={device.index or 0}"]
        self._over, self._thread = Event(), Thread(target=self._look, daemon=True)
        self._can = device.type == "cuda" and shutil.which("nvidia-smi") is not None

    def __enter__(self) -> "MemoryUsed":
        if self._can:
            self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        if self._can:
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            found = subprocess.run(self._command, capture_output=True, text=True).stdout.strip()
            self.most_mib = max(self.most_mib or 0, int(found)) if found.isdecimal() else self.most_mib


PARTS: dict[str, Callable[[Bench], None]] = {"row": row, "lanes": lanes, "wide": wide, "opt_in": opt_in, "workers": workers}


def main() -> None:
    """Measure the parts that were asked for, in that order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8, help="of the plain loop")
    parser.add_argument("--data", type=Path, help="a folder of images of 32x32, with train/ and test/, in the place of noise")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.jsonl"), help="figures are added to this file")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end by then")
    parser.add_argument("--rehearse", action="store_true", help="all of it in small")
    given = parser.parse_args()
    latest = time.perf_counter() + given.seconds
    data = {"name": "imagefolder", "label": "images", "root": str(given.data.absolute()), "size": 32} if given.data else None
    counts: tuple[int, ...] = (1, 7, 14, 28)
    # Noise in full batches alone: compiling for a last one that is smaller would take longer than the epoch.
    suite, short, fewest, warm_up, batches, speed = NoiseSuite(images=391 * 128, data=data), 6400, 2560, 20, 20, 1.0
    if given.rehearse:
        suite = NoiseSuite(images=30, batch_size=10, teacher="wrn_10_1", students=("wrn_10_1",), data=data)
        short, fewest, warm_up, batches, counts, speed = 30, 30, 2, 1, (1, 2), math.inf
        given.workers = 1
    given.out.parent.mkdir(parents=True, exist_ok=True)
    device = choose_device(given.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            *(device, Path(folder), given.out, suite, short, fewest, warm_up, batches, given.workers, counts),
            latest=latest,
            speed=speed,
        )
        bench.tell("environment", **environment(device).model_dump(), rehearsed=given.rehearse)
        for part in given.parts:
            PARTS[part](bench)
    if bench.broken:
        sys.exit(f"{len(bench.broken)} failed, as is told above: {', '.join(bench.broken)}")


if __name__ == "__main__":
    main()
