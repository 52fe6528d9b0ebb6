"""Figures of a GPU, one JSON object a line as each is measured: `python tests/bench/gpu.py row alone wide lanes workers`.

Parts, by worth:
  row      the seven methods in several kinds of arithmetic, between two measurements of the plain loop
  alone    one method
  wide     twenty methods, and what each takes by itself
  lanes    1, 7, 14 and 28 students of one method
  workers  two workers on one GPU against one process, two seeds of the row

A row is one whole epoch (391 steps of batch 128 unless a part says less) after an epoch that records graphs and compiles, through
the same code as `kdbench run`, without evaluation. The plain loop is the field's: `cudnn.benchmark`, torch's own precision, batches
of 128; it is timed over a few batches, once its workers are busy, and its first batches do not count. `--rehearse` does all of it
in small, for a CPU, where the figures mean nothing.
"""

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import torch
from plain import plain_ms
from suite_of_noise import OTHERS, ROW, NoiseSuite, train

from kdbench.runner.engines import Place
from kdbench.spec.recipe import Recipe
from kdbench.training.device import choose_device, environment

ARITHMETIC: dict[str, dict[str, Any]] = {
    "default": {},
    "bf16": {"precision": "bf16"},
    "bf16, stacked": {"precision": "bf16", "stack": True},
    "stacked": {"stack": True},
    "fp32": {"precision": "fp32"},
    "compiled": {"compile": True},
}
"""By worth; a kind whose key the recipe does not have is left out."""


@dataclass(frozen=True)
class Bench:
    """What is measured on, and where figures go.

    Attributes:
        suite: of the row, on all images.
        short: images of the parts that need no whole epoch.
        plain_batches: of the plain loop that are timed, after as many that are not.
        lanes: how many students at once.
    """

    device: torch.device
    folder: Path
    out: Path
    suite: NoiseSuite
    short: int
    plain_batches: int
    workers: int
    lanes: tuple[int, ...]

    def tell(self, part: str, **found: Any) -> None:
        """Print and keep a figure."""
        line = json.dumps({"part": part, **found})
        print(line, flush=True)
        with self.out.open("a") as file:
            file.write(f"{line}\n")

    def measure(self, part: str, suite: NoiseSuite, **about: Any) -> None:
        """One row, and all that is known of it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        clock = train(suite, self.folder / "shared", device=str(self.device))
        own = {record.setting or record.method: record for record in clock.students}
        last = {name: json.loads(clock.curves(record).splitlines()[-1]) for name, record in own.items()}
        steps = -(-max(row["images"] for row in last.values()) // suite.batch_size)

        seconds = clock.timed_s - sum(row.get("evaluation_s", 0.0) for row in last.values())

        def ms(seconds: float) -> float:
            return round(1000 * seconds / steps, 3)

        self.tell(
            part,
            **about,
            lanes=len(own),
            steps=steps,
            ms_per_step=ms(seconds),
            ms_per_step_and_lane=ms(seconds / len(own)),
            own_ms={name: ms(row["train_s"] - row["data_s"] - row["teacher_s"]) for name, row in last.items()},
            data_ms=ms(max(row["data_s"] for row in last.values())),
            teacher_ms=ms(max(row["teacher_s"] for row in last.values())),
            mem_mib={name: round(record.peak_mem_mib) for name, record in own.items()},
            reserved_mib=round(torch.cuda.max_memory_reserved() / 2**20) if self.device.type == "cuda" else None,
            without_graphs=[line for line in clock.said if "without CUDA graphs" in line],
            all_s=round(time.perf_counter() - began, 1),
        )

    def plain(self) -> None:
        """The row in the plain loop, in a process of its own: what kdbench sets for its process must not help it."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
            suite, batches = self.suite, self.plain_batches
            found = elsewhere.submit(plain_ms, suite, str(self.device), batches=batches, workers=self.workers, folder=self.folder)
            by_method = found.result()
        self.tell("row", side="plain loop", ms_per_step=round(sum(by_method.values()), 3), own_ms=by_method, workers=self.workers)


def row(bench: Bench) -> None:
    """The seven methods, each kind of arithmetic once, the plain loop before, between and after."""
    known = {name: keys for name, keys in ARITHMETIC.items() if keys.keys() <= Recipe.model_fields.keys()}
    if bench.device.type == "cpu":
        del known["compiled"]  # a rehearsal that took minutes
    bench.plain()
    for number, (name, keys) in enumerate(known.items(), start=1):
        bench.measure("row", replace(bench.suite, recipe=keys), side="kdbench", arithmetic=name)
        if number in (2, len(known)):
            bench.plain()


def alone(bench: Bench) -> None:
    """KD by itself."""
    for name in ("default", "bf16"):
        bench.measure("alone", replace(bench.suite, methods=("kd",), recipe=ARITHMETIC[name], images=bench.short), arithmetic=name)


def wide(bench: Bench) -> None:
    """Twenty methods."""
    for name in ("default", "bf16"):
        suite = replace(bench.suite, methods=(*ROW, *OTHERS), recipe=ARITHMETIC[name], images=bench.short)
        bench.measure("wide", suite, arithmetic=name)


def lanes(bench: Bench) -> None:
    """KD at so many temperatures."""
    for count in bench.lanes:
        methods = tuple({"kd": {"temperature": 1 + number}} for number in range(count))
        bench.measure("lanes", replace(bench.suite, methods=methods, images=bench.short, seeds=(count,)))  # none was trained before


def workers(bench: Bench) -> None:
    """Two seeds of the row: one process with the lanes of a seed at once, against two workers on one device."""
    suite = replace(bench.suite, seeds=(0, 1), images=bench.short, epochs=3)
    train(replace(suite, methods=("kd",), seeds=(9,)), bench.folder / "before", device=str(bench.device))  # the teacher
    names = [f"{bench.device}, {number}" for number in "ab"]
    places = [Place(name, socket.gethostname(), str(bench.device), 1 if bench.device.type == "cpu" else None) for name in names]
    for side, engine in (("one process", "here"), ("two workers", "local")):
        results = Path(shutil.copytree(bench.folder / "before", bench.folder / side))
        with patch("kdbench.runner.engines.local.local_places", lambda text: places), MemoryUsed(bench.device) as memory:
            began = time.perf_counter()
            train(suite, results, device=str(bench.device), engine=engine)
            seconds = time.perf_counter() - began
        bench.tell("workers", side=side, seconds=round(seconds, 1), device_mem_mib=memory.most_mib)


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


PARTS: dict[str, Callable[[Bench], None]] = {"row": row, "alone": alone, "wide": wide, "lanes": lanes, "workers": workers}


def main() -> None:
    """Measure the parts that were asked for, in that order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8, help="of the plain loop")
    parser.add_argument("--data", type=Path, help="a folder of images of 32x32, with train/ and test/, in the place of noise")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.jsonl"), help="figures are added to this file")
    parser.add_argument("--rehearse", action="store_true", help="all of it in small")
    given = parser.parse_args()
    data = {"name": "imagefolder", "label": "images", "root": str(given.data.absolute()), "size": 32} if given.data else None
    suite, short, batches, counts = NoiseSuite(data=data), 12_800, 20, (1, 7, 14, 28)
    if given.rehearse:
        suite = NoiseSuite(images=20, batch_size=10, teacher="wrn_10_1", student="wrn_10_1", data=data)
        short, batches, counts = 20, 1, (1, 2)
        given.workers = 0
    given.out.parent.mkdir(parents=True, exist_ok=True)
    device = choose_device(given.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, Path(folder), given.out, suite, short, batches, given.workers, counts)
        bench.tell("environment", **environment(device).model_dump(), rehearsed=given.rehearse)
        for part in given.parts:
            PARTS[part](bench)


if __name__ == "__main__":
    main()
