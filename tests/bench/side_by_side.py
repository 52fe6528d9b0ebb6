"""Trains lanes beside each other, case by case, and prints as it goes: `python tests/bench/side_by_side.py --layout NCHW NHWC`.

Whoever starts it kills it where it is silent: then the case that it named last hangs. `tests/test_no_hang.py` does that. On CUDA it
also prints which kernels of libraries run, and ends with an error where one of them waits for others, or where a lane fails.
`--seconds 40` begins no case after that time, and says how many it left out. `--rehearse` trains one small case.
"""

import argparse
import math
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import weight_gradients
from suite_of_noise import OTHERS, ROW, NoiseSuite, train

from kdbench.models import build_model
from kdbench.training import arithmetic
from kdbench.training.device import choose_device, exact

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
PRECISIONS = ("fp32", "default", "bf16", "tf32")
VIT = {"model": "vit_of_noise", "hooks": ["blocks.3", "blocks.7", "blocks.11"]}
FOREIGN: tuple[Any, ...] = ("timm/convnext_atto", VIT, "timm/efficientnet_b0", "torchvision/mobilenet_v3_small")
OWN: dict[int, tuple[Any, ...]] = {2: ("kd", ROW[4]), 7: ROW, 20: (*ROW, *OTHERS)}
KD = ("scratch", "kd")

WAITING = re.compile(r"semiPersist|1C11|cudnn::(bn|batchnorm)|(bn|batchnorm)_(fw|bw)")
"""In the names of cuDNN's kernels for batch norm, of which some wait between their blocks."""


@dataclass(frozen=True)
class Case:
    """Lanes of some networks, each by these methods."""

    students: tuple[Any, ...]
    precision: str
    methods: tuple[Any, ...]

    def __str__(self) -> str:
        names = [student if isinstance(student, str) else student["model"] for student in self.students]
        return f"{' and '.join(names)}, {self.precision}, {len(self.students) * len(self.methods)} lanes"


def cases() -> Iterator[Case]:
    """The likeliest to hang first: two lanes in fp32. Then all kinds of networks at once, before more lanes of one."""
    for precision in PRECISIONS:
        yield Case(("resnet20",), precision, OWN[2])
        yield Case(FOREIGN, precision, KD)
    yield from (Case(("resnet20",), precision, OWN[lanes]) for lanes in (7, 20) for precision in PRECISIONS)


def kernels(device: torch.device, layout: torch.memory_format, precision: str) -> list[str]:
    """The names of those of a step of ResNet-20; none where they cannot be seen."""
    with exact(device, precision=precision, image_shape=(3, 32, 32)):
        network = build_model("resnet20", num_classes=10, in_channels=3).to(device).to(memory_format=layout).train()
        images = torch.randn(128, 3, 32, 32, device=device).to(memory_format=layout)

        def step() -> None:
            with arithmetic.autocast(device, precision=precision):
                loss = network(images).logits.float().square().mean()
            loss.backward()

        return weight_gradients.kernels([step], device)


def main() -> None:
    """Train the cases in each layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, nargs="+", default=["NCHW"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case later than that")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    latest = time.perf_counter() + given.seconds
    device = choose_device(given.device)
    size: dict[str, Any] = {"images": 2560, "teacher": "resnet8"}
    todo = [(layout, case) for case in cases() for layout in given.layout]
    if given.rehearse:
        size = {"images": 20, "batch_size": 10, "teacher": "wrn_10_1"}
        todo = [(layout, Case(("wrn_10_1",), "bf16", KD)) for layout in given.layout]
    wrong: list[str] = []
    for layout in given.layout if device.type == "cuda" else ():
        for precision in PRECISIONS:
            names = [name for name in kernels(device, LAYOUTS[layout], precision) if "at::native" not in name]
            waiting = [name for name in names if WAITING.search(name)]
            print(f"{layout}, {precision}: kernels of libraries: {[name[:70] for name in names]}", flush=True)
            wrong += [f"{layout}, {precision}: {name} may wait for others" for name in waiting]
    original, back = arithmetic.memory_format, 0
    modules = [module for module in sys.modules.values() if vars(module).get("memory_format") is original]
    with tempfile.TemporaryDirectory() as folder:
        for layout, case in todo:
            if (began := time.perf_counter()) > latest:
                print(f"for {len(todo) - back} more cases there was no time", flush=True)
                break
            print(f"{layout}, {case}:", flush=True)
            suite = NoiseSuite(students=case.students, methods=case.methods, recipe={"precision": case.precision}, **size)
            with ExitStack() as stack:
                for module in modules:
                    chosen = LAYOUTS[layout]
                    stack.enter_context(patch.object(module, "memory_format", lambda device, *, precision, found=chosen: found))
                try:
                    clock = train(suite, Path(folder) / layout, device=str(device))
                except Exception:  # whatever it is, the other cases are worth having
                    traceback.print_exc()
                    wrong.append(f"{layout}, {case} raised")
                else:
                    wrong += [f"{layout}, {case}: {name} failed: {reason}" for name, reason in clock.failed.items()]
                    ungraphed = [line for line in clock.said if "without CUDA graphs" in line]
                    print(f"  came back after {time.perf_counter() - began:.1f} s {ungraphed or ''}", flush=True)
            back += 1
    print(f"{back} cases came back", flush=True)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
