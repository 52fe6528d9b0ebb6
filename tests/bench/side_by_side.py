"""Trains lanes beside each other, case by case, and prints as it goes: `python tests/bench/side_by_side.py --layout NCHW`.

Whoever starts it kills it where it is silent: then the case that it named last hangs. `tests/test_no_hang.py` does that. On CUDA it
also looks which kernels run, and ends with an error where one of them waits for others. `--seconds 40` begins no case after that
time, and says how many it left out. `--rehearse` trains one small case.
"""

import argparse
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from suite_of_noise import OTHERS, ROW, NoiseSuite, train

from kdbench.models import build_model
from kdbench.training import arithmetic
from kdbench.training.device import choose_device, exact

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
PRECISIONS = ("fp32", "default", "bf16", "tf32")
VIT = {"model": "vit_of_noise", "hooks": ["blocks.3", "blocks.7", "blocks.11"]}
FOREIGN: tuple[Any, ...] = ("timm/convnext_atto", VIT, "timm/efficientnet_b0", "torchvision/mobilenet_v3_small")
OWN: dict[int, tuple[Any, ...]] = {2: ("kd", ROW[4]), 7: ROW, 20: (*ROW, *OTHERS)}
KD = tuple({"kd": {"temperature": 1 + number}} for number in range(7))

WAITING = re.compile(r"semiPersist|1C11|cudnn::(bn|batchnorm)|(bn|batchnorm)_(fw|bw)")
"""In the names of cuDNN's kernels for batch norm, of which some wait between their blocks."""


@dataclass(frozen=True)
class Case:
    """Lanes of one network, by these methods."""

    student: Any
    precision: str
    methods: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.student}, {self.precision}, {len(self.methods)} lanes"


def cases() -> Iterator[Case]:
    """The likeliest to hang first."""
    for count, methods in OWN.items():
        yield from (Case("resnet20", precision, methods) for precision in PRECISIONS)
        if count == 7:
            for kd in (KD, KD[:2]):
                yield from (Case(student, precision, kd) for student in FOREIGN for precision in PRECISIONS[:3])


def kernels(device: torch.device, layout: torch.memory_format, precision: str) -> list[str]:
    """The names of those of a step of ResNet-20; none where they cannot be seen."""
    with exact(device, precision=precision, image_shape=(3, 32, 32)):
        network = build_model("resnet20", num_classes=10, in_channels=3).to(device).to(memory_format=layout).train()
        images = torch.randn(128, 3, 32, 32, device=device).to(memory_format=layout)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            with arithmetic.autocast(device, precision=precision):
                loss = network(images).logits.float().square().mean()
            loss.backward()
            torch.cuda.synchronize(device)
    return sorted({event.key for event in profile.key_averages()})


def main() -> None:
    """Train the cases in one layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="NCHW")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case later than that")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    latest = time.perf_counter() + given.seconds
    device, layout = choose_device(given.device), LAYOUTS[given.layout]
    size: dict[str, Any] = {"images": 2560, "teacher": "resnet8"}
    todo = list(cases())
    if given.rehearse:
        size, todo = {"images": 20, "batch_size": 10, "teacher": "wrn_10_1"}, [Case("wrn_10_1", "bf16", KD[:2])]
    waiting: list[str] = []
    for precision in PRECISIONS if device.type == "cuda" else ():
        names = kernels(device, layout, precision)
        found = [name for name in names if WAITING.search(name)]
        print(f"{given.layout}, {precision}: of {len(names)} kinds of kernel these may wait for others: {found}", flush=True)
        waiting += found
    original = arithmetic.memory_format
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for module in [module for module in sys.modules.values() if vars(module).get("memory_format") is original]:
            stack.enter_context(patch.object(module, "memory_format", lambda device, *, precision: layout))
        back = 0
        for case in todo:
            if (began := time.perf_counter()) > latest:
                print(f"for {len(todo) - back} more cases there was no time", flush=True)
                break
            print(f"{given.layout}, {case}:", flush=True)
            suite = NoiseSuite(student=case.student, methods=case.methods, recipe={"precision": case.precision}, **size)
            clock = train(suite, Path(folder), device=str(device))
            ungraphed = [line for line in clock.said if "without CUDA graphs" in line]
            print(f"  came back after {time.perf_counter() - began:.1f} s {ungraphed or ''}", flush=True)
            back += 1
    assert not waiting, f"these kernels may wait for others: {waiting}"
    print(f"{back} cases came back", flush=True)


if __name__ == "__main__":
    main()
