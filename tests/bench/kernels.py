"""Where a GPU's time goes in the row of seven, kernel by kernel: `python tests/bench/kernels.py bf16`.

A line of JSON: milliseconds per step, of 20 steps before any is profiled; then, of profiled ones, milliseconds of kernels, how many
there are, their sums by kind, and the longest of them. `--traces` also keeps what `torch.profiler` saw, for chrome://tracing.
`--rehearse` is for a CPU. A second profile of CUDA graphs in one process ends in a fault of memory: one arithmetic at a time.
"""

import argparse
import json
import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu import ARITHMETIC
from suite_of_noise import NoiseSuite, train

from kdbench.training.device import choose_device
from kdbench.training.segments import Position
from kdbench.training.stream import Load, Stream

WARM_UP, TIMED, STEPS = 6, 20, 4
"""Batches of the first epoch; then, in the second one after its first, those that are timed and those that are profiled."""

LONGEST = 30

KINDS = {
    "gradients of weights": r"wgrad|dgrad_weight|bwd_filter|BwdFilter|backward_filter",
    "gradients of inputs": r"dgrad|bwd_data|BwdData",
    "layouts": r"nchwToNhwc|nhwcToNchw|transpose|permute",
    "convolutions": r"fprop|convolve|conv2d|implicit_gemm|winograd|depthwise",
    "batch norms": r"batch_norm|bn_fw|bn_bw",
    "products": r"gemm|gemv|splitK|cublas|nvjet|cutlass",
    "optimiser and foreach": r"multi_tensor_apply|FusedOptimizer|fused_sgd",
    "joining": r"CatArray",
    "copies": r"copy|Memcpy|direct_copy",
    "zeroing": r"Memset|FillFunctor",
    "sums": r"reduce_kernel|softmax|SoftMax|nll",
    "elementwise": r"elementwise",
}
"""By what their names contain; the first that fits."""


def kind_of(kernel: str) -> str:
    """Its kind."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel)), "others")


class Profile:
    """What is seen of the second epoch of a training in its block.

    Attributes:
        ms: of a step that is not profiled.
        seen: by torch's profiler.
    """

    def __init__(self, device: torch.device) -> None:
        self.ms = math.nan
        self._on_cuda = device.type == "cuda"
        activity = torch.profiler.ProfilerActivity
        self.seen = torch.profiler.profile(activities=[activity.CUDA if self._on_cuda else activity.CPU])

    @contextmanager
    def block(self) -> Iterator[None]:
        """Trainings have few steps here."""
        whole = Stream.batches

        def batches(stream: Stream, now: Position, views: Sequence[str]) -> Iterator[Load]:
            loads = islice(whole(stream, now, views), 1 + TIMED + STEPS if now.epoch else WARM_UP)
            if now.epoch:
                yield from self._watched(loads)
            else:
                yield from loads

        with patch.object(Stream, "batches", batches):
            yield

    def _watched(self, loads: Iterator[Load]) -> Iterator[Load]:
        yield next(loads)  # without a graph
        began = self._now()
        yield from islice(loads, TIMED)
        self.ms = 1000 * (self._now() - began) / TIMED
        with self.seen:
            yield from loads
            self._now()

    def _now(self) -> float:
        if self._on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def figures(profile: Profile, device: torch.device) -> dict[str, Any]:
    """Of one step."""
    microseconds: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in profile.seen.key_averages():
        name = str(event.key)
        taken = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        if not taken:
            continue  # a call of the host
        microseconds[name] += taken / STEPS
        times[name] += event.count
    kinds: dict[str, tuple[float, float]] = {}
    for name, taken in microseconds.items():
        ms, count = kinds.get(kind_of(name), (0.0, 0.0))
        kinds[kind_of(name)] = ms + taken / 1000, count + times[name] / STEPS
    return {
        "ms_per_step": round(profile.ms, 3),
        "kernels_ms": round(microseconds.total() / 1000, 3),
        "kernels": round(times.total() / STEPS),
        "by_kind": {kind: [round(ms, 3), round(count)] for kind, (ms, count) in sorted(kinds.items(), key=lambda k: -k[1][0])},
        "longest": [[name[:110], round(taken, 1), times[name] / STEPS] for name, taken in microseconds.most_common(LONGEST)],
    }


def main() -> None:
    """Profile each kind of arithmetic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arithmetic", choices=ARITHMETIC)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.jsonl"), help="figures are added to this file")
    parser.add_argument("--traces", type=Path, help="a folder for what the profiler saw")
    parser.add_argument("--rehearse", action="store_true", help="in small")
    given = parser.parse_args()
    device = choose_device(given.device)
    suite = NoiseSuite(images=6400, recipe=ARITHMETIC[given.arithmetic])
    if given.rehearse:
        suite = replace(suite, images=300, batch_size=10, teacher="wrn_10_1", students=("wrn_10_1",))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    profile = Profile(device)
    with tempfile.TemporaryDirectory() as folder, profile.block():
        clock = train(suite, Path(folder), device=str(device))
    line = json.dumps({"part": "kernels", "arithmetic": given.arithmetic, "failed": clock.failed, **figures(profile, device)})
    print(line, flush=True)
    with given.out.open("a") as file:
        file.write(f"{line}\n")
    if given.traces:
        given.traces.mkdir(parents=True, exist_ok=True)
        profile.seen.export_chrome_trace(str(given.traces / f"{given.arithmetic.replace(', ', '-')}.json.gz"))


if __name__ == "__main__":
    main()
