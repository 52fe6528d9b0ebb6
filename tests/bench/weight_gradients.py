"""Which kernel takes the gradients of a 3x3 convolution's weights on a GPU, and how long: `python tests/bench/weight_gradients.py`.

The layers are those of ResNet-20 on images of 32x32. From kdbench's own choice (deterministic, no trial of kernels, batch 128, one
student) one thing after the other is changed: cuDNN's choice by trial, kernels that need not repeat themselves, the layout, the
batch, and eight students as groups. Prints a line of JSON for each: microseconds by channels, the median of 5 bursts of 10 calls;
their sum over the network; and the kernels' names. `--seconds 20` begins none after that time. `--rehearse` is for a CPU.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kdbench.errors import first_line
from kdbench.models.stacked_layers import PLACES
from kdbench.training.device import choose_device, exact
from kdbench.training.watches import Stopwatch

LAYERS = {16: (32, 6), 32: (16, 5), 64: (8, 5)}
"""By channels: the size of the maps, and how many such convolutions ResNet-20 has."""

BURSTS, CALLS = 5, 10


@dataclass(frozen=True)
class Case:
    """How the gradients are taken.

    Attributes:
        deterministic: whether only kernels that repeat themselves may be chosen.
        by_trial: whether cuDNN tries kernels and takes the fastest.
        groups: students as one network.
    """

    precision: str
    layout: str = "NHWC"
    deterministic: bool = True
    by_trial: bool = False
    batch: int = 128
    groups: int = 1


def cases() -> Iterator[Case]:
    """What is likeliest to tell something first."""
    for precision in ("default", "bf16", "fp32"):
        for groups in (1, PLACES):
            for layout in ("NHWC", "NCHW"):
                usual = Case(precision, layout, groups=groups)
                yield from (usual, replace(usual, by_trial=True), replace(usual, by_trial=True, deterministic=False))
        yield from (Case(precision, batch=batch) for batch in (64, 256))


def gradient(case: Case, channels: int, size: int, device: torch.device) -> Callable[[], Tensor]:
    """Takes that of the weights alone."""
    kind = torch.bfloat16 if case.precision == "bf16" else torch.float32
    layout = torch.channels_last if case.layout == "NHWC" else torch.contiguous_format

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=kind).contiguous(memory_format=layout)

    width = case.groups * channels
    maps, above, weight = (
        random(case.batch, width, size, size),
        random(case.batch, width, size, size),
        random(width, channels, 3, 3),
    )
    ones, zeros = [1, 1], [0, 0]
    options = (None, ones, ones, ones, False, zeros, case.groups, [False, True, False])
    return lambda: torch.ops.aten.convolution_backward(above, maps, weight, *options)[1]


def microseconds(act: Callable[[], object], device: torch.device) -> float:
    """Of one call, without the first one, which chooses the kernel."""
    act()
    watch, found = Stopwatch(device), []
    for _ in range(BURSTS):
        watch.start()
        for _ in range(CALLS):
            act()
        watch.stop()
        found.append(1e6 * watch.take() / CALLS)
    return round(statistics.median(found), 1)


def kernels(acts: Iterable[Callable[[], object]], device: torch.device) -> list[str]:
    """The names of those that some calls start; none where they cannot be seen."""
    if device.type == "cpu":
        return []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for act in acts:
            act()
        torch.cuda.synchronize(device)
    return sorted({event.key for event in profile.key_averages() if event.self_device_time_total})


def figures(case: Case, device: torch.device) -> dict[str, object]:
    """What a case takes, and by which kernels; or why it cannot be."""
    with exact(device, precision=case.precision, image_shape=(3, 32, 32)):
        torch.use_deterministic_algorithms(case.deterministic)
        torch.backends.cudnn.benchmark = case.by_trial
        try:
            acts = {channels: gradient(case, channels, size, device) for channels, (size, _) in LAYERS.items()}
            taken = {channels: microseconds(act, device) for channels, act in acts.items()}
            names = kernels(acts.values(), device)
        except RuntimeError as problem:  # such as that there is no deterministic kernel
            return {"error": f"{type(problem).__name__}: {first_line(problem)}"}
    total = sum(count * taken[channels] for channels, (_, count) in LAYERS.items()) / case.groups
    return {"microseconds": taken, "ms_of_a_student": round(total / 1000, 3), "kernels": names}


def main() -> None:
    """Measure case by case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.jsonl"), help="figures are added to this file")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin none later than that")
    parser.add_argument("--rehearse", action="store_true", help="the first three, for two images")
    given = parser.parse_args()
    latest = time.perf_counter() + given.seconds
    device, todo = choose_device(given.device), list(cases())
    if given.rehearse:
        todo = [replace(case, batch=2) for case in todo[:3]]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for done, case in enumerate(todo):
        if time.perf_counter() > latest:
            print(f"for {len(todo) - done} more there was no time", flush=True)
            break
        line = json.dumps({"part": "weight_gradients", **asdict(case), **figures(case, device)})
        print(line, flush=True)
        with given.out.open("a") as file:
            file.write(f"{line}\n")


if __name__ == "__main__":
    main()
