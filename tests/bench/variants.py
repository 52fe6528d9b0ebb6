"""Ways to make the stacked row faster on a GPU, each tried in the whole row: `python tests/bench/variants.py`.

Eight ResNet-20 as one network have four strided convolutions with groups, which give twice the channels that they take. cuDNN pads
and rearranges the maps of each group for them: some 2 of 10 ms of a step in bf16, by a profile. For convolutions with groups that
give as many channels as they take it has fast kernels, by the same profile. So the ways here compute two of those:
  grouped       as kdbench computes: one convolution with groups
  halves        two, each of which gives half of the channels
  every second  two at every pixel, of which every second is kept
  twice         one of twice the groups, for which the maps are there twice
In all but the first, a convolution of one pixel is given every second pixel alone. `first` lets the device prefer the students'
kernels to those of the teacher, which has time until the next batch.

One line of JSON for each, of 391 steps after a warm-up. `--device cpu --rehearse` does it in small.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu import ARITHMETIC, MS, Bench
from suite_of_noise import NoiseSuite
from torch import Tensor

from kdbench.models.stacked_layers import PLACES, Convolution
from kdbench.training.device import choose_device

Way = Callable[[Convolution, Tensor], Tensor]
"""A layer and its maps (B, 8 C, H, W), channels-last, to (B, 16 C, H / 2, W / 2)."""

ORDER = [
    *[("bf16, stacked", way, first) for way, first in (("grouped", False), ("halves", False), ("halves", True))],
    *[("bf16, stacked", way, False) for way in ("every second", "twice")],
    *[("stacked", way, False) for way in ("halves", "every second")],
    *[(arithmetic, "grouped", True) for arithmetic in ("bf16", "default")],
]


def halves(layer: Convolution, x: Tensor, *, stride: int = 2) -> Tensor:
    """Two convolutions with equal groups."""
    one = layer.places[0]
    if one.kernel_size == (1, 1):
        x, stride = _every_second(x), 1
    groups, times = PLACES * one.groups, one.out_channels // one.in_channels
    by_pixel = layer.weight.permute(0, 2, 3, 1)
    weights = by_pixel.reshape(groups, times, -1, *by_pixel.shape[1:]).transpose(0, 1).flatten(1, 2)
    made = [F.conv2d(x, own.permute(0, 3, 1, 2), None, stride, one.padding, 1, groups) for own in weights]
    return torch.stack([_by_group(maps, groups) for maps in made], -2).flatten(-3).permute(0, 3, 1, 2)


def every_second(layer: Convolution, x: Tensor) -> Tensor:
    """The same at every pixel, of which every second is kept."""
    return halves(layer, x) if layer.places[0].kernel_size == (1, 1) else _every_second(halves(layer, x, stride=1))


def twice(layer: Convolution, x: Tensor) -> Tensor:
    """One convolution with twice the groups."""
    one, stride = layer.places[0], 2
    if one.kernel_size == (1, 1):
        x, stride = _every_second(x), 1
    groups, times = PLACES * one.groups, one.out_channels // one.in_channels
    by_group = _by_group(x, groups).unsqueeze(-2).expand(-1, -1, -1, -1, times, -1)
    return F.conv2d(by_group.flatten(-3).permute(0, 3, 1, 2), layer.weight, None, stride, one.padding, 1, times * groups)


def _by_group(maps: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) to (B, H, W, groups, C / groups)."""
    return maps.permute(0, 2, 3, 1).view(len(maps), *maps.shape[2:], groups, -1)


def _every_second(maps: Tensor) -> Tensor:
    return maps[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)


WAYS: dict[str, Way] = {"grouped": Convolution.forward, "halves": halves, "every second": every_second, "twice": twice}


@contextmanager
def tried(way: Way, *, first: bool) -> Iterator[None]:
    """Stacks compute so in the block."""
    usual = Convolution.forward

    def forward(layer: Convolution, x: Tensor) -> Tensor:
        one = layer.places[0]
        widens = one.stride == (2, 2) and one.out_channels == 2 * one.in_channels and one.bias is None
        return way(layer, x) if widens and x.shape[1] != one.in_channels else usual(layer, x)

    def own_stream(device: torch.device) -> torch.cuda.Stream | None:
        return torch.cuda.Stream(device, priority=-first) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's

    with patch.object(Convolution, "forward", forward), patch("kdbench.training.lane.own_stream", own_stream):
        yield


def main() -> None:
    """Measure them, the likeliest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.jsonl"), help="figures are added to this file")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end by then")
    parser.add_argument("--rehearse", action="store_true", help="all of it in small")
    given = parser.parse_args()
    latest = time.perf_counter() + given.seconds
    suite, warm_up, speed = NoiseSuite(images=391 * 128), 20, 1.0
    if given.rehearse:
        suite, warm_up, speed = NoiseSuite(images=20, batch_size=10, teacher="wrn_10_1", students=("wrn_10_1",)), 2, math.inf
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            *(choose_device(given.device), Path(folder), given.out, suite, suite.images, suite.images, warm_up, 0, 0, ()),
            latest=latest,
            speed=speed,
        )
        for number, (arithmetic, way, first) in enumerate(ORDER):
            own = replace(suite, recipe=ARITHMETIC[arithmetic], seeds=(number,))  # none was trained before
            with tried(WAYS[way], first=first):
                bench.measure("variants", own, ms=MS[arithmetic], arithmetic=arithmetic, way=way, first=first)
    if bench.broken:
        sys.exit(f"{len(bench.broken)} failed, as is told above: {', '.join(bench.broken)}")


if __name__ == "__main__":
    main()
