"""Ways to compute the strided convolutions of stacked students on a GPU: `python tests/bench/strided.py`.

Eight ResNet-20 as one network have four convolutions with groups that give twice the channels at half the size. cuDNN pads and
rearranges their maps, which took a sixth of a step in bf16 on an H200. Prints a line of JSON for each layer and way: microseconds
forward and backward as a CUDA graph, whether the maps stay channels-last, whether it repeats itself, and by how much the output and
the gradients differ from those of one convolution with groups. `--device cpu` rehearses it.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from weight_gradients import microseconds

from kdbench.errors import first_line
from kdbench.models.stacked import PLACES
from kdbench.training.arithmetic import autocast
from kdbench.training.device import choose_device, exact
from kdbench.training.graphs import Graph, own_stream

Way = Callable[[Tensor, list[Tensor], int], Tensor]
"""Maps (B, 8 C, H, W), a weight (2 C, C, k, k) for each place and the padding to maps (B, 16 C, H / 2, W / 2)."""

LAYERS = {"3x3, 16 to 32": (16, 3, 32), "1x1, 16 to 32": (16, 1, 32), "3x3, 32 to 64": (32, 3, 16), "1x1, 32 to 64": (32, 1, 16)}
"""C, k and the size of the maps."""


def grouped(maps: Tensor, weights: list[Tensor], padding: int, stride: int = 2) -> Tensor:
    """One convolution with groups, as a stack has it."""
    return F.conv2d(maps, torch.cat(weights), None, stride, padding, 1, PLACES)


def halves(maps: Tensor, weights: list[Tensor], padding: int, stride: int = 2) -> Tensor:
    """Two, each of which gives as many channels as it takes."""
    firsts, seconds = zip(*(weight.chunk(2) for weight in weights), strict=True)
    return _interleaved([grouped(maps, list(half), padding, stride) for half in (firsts, seconds)])


def every_second(maps: Tensor, weights: list[Tensor], padding: int) -> Tensor:
    """Two at every place, of which every second is kept."""
    return halves(maps, weights, padding, stride=1)[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)


def twice_the_input(maps: Tensor, weights: list[Tensor], padding: int, stride: int = 2) -> Tensor:
    """One of twice the groups, for which each place's maps are there twice."""
    by_place = maps.permute(0, 2, 3, 1)
    places = by_place.reshape(*by_place.shape[:-1], PLACES, 1, -1)
    twice = places.expand(-1, -1, -1, -1, 2, -1).flatten(-3).permute(0, 3, 1, 2)
    return F.conv2d(twice, torch.cat(weights), None, stride, padding, 1, 2 * PLACES)


def place_by_place(maps: Tensor, weights: list[Tensor], padding: int) -> Tensor:
    """Eight without groups."""
    parts = (part.contiguous(memory_format=torch.channels_last) for part in maps.chunk(PLACES, 1))
    return torch.cat([F.conv2d(part, weight, None, 2, padding) for part, weight in zip(parts, weights, strict=True)], 1)


def _of_every_second(way: Callable[..., Tensor]) -> Way:
    return lambda maps, weights, padding: way(
        maps[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last), weights, padding, 1
    )


WAYS: dict[int, dict[str, Way]] = {
    3: {
        "grouped": grouped,
        "halves": halves,
        "every second": every_second,
        "twice the input": twice_the_input,
        "place by place": place_by_place,
    },
    1: {
        "grouped": grouped,
        "halves": halves,
        "grouped, of every second": _of_every_second(grouped),
        "halves, of every second": _of_every_second(halves),
        "twice the input, of every second": _of_every_second(twice_the_input),
        "place by place": place_by_place,
    },
}
"""By k."""


def _interleaved(parts: list[Tensor]) -> Tensor:
    """Of each place all parts: (B, 8 C, H, W) each to (B, 16 C, H, W), channels-last."""
    seen = [part.permute(0, 2, 3, 1) for part in parts]
    seen = [part.reshape(*part.shape[:-1], PLACES, -1) for part in seen]
    return torch.cat(seen, dim=-1).flatten(-2).permute(0, 3, 1, 2)


def recorded(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A step as a graph where there is CUDA."""
    return Graph(lambda: (step(), None)[1], own_stream(device)).replay if device.type == "cuda" else step


class Layer:
    """A strided convolution of a stack, with what goes into it and what comes back."""

    def __init__(self, name: str, *, precision: str, batch: int, device: torch.device) -> None:
        channels, self._k, size = LAYERS[name]
        self._precision, self._device = precision, device
        torch.manual_seed(0)

        def maps(*shape: int) -> Tensor:
            kind = torch.bfloat16 if precision == "bf16" else torch.float32
            return torch.randn(batch, *shape, device=device, dtype=kind).to(memory_format=torch.channels_last)

        self._maps = maps(PLACES * channels, size, size).requires_grad_()
        self._above = maps(2 * PLACES * channels, size // 2, size // 2)
        shape = 2 * channels, channels, self._k, self._k
        self._weights = [torch.randn(shape, device=device, requires_grad=True) for _ in range(PLACES)]
        self.ways = WAYS[self._k]

    def step(self, way: Way) -> list[Tensor]:
        """The output, and the gradients of the input and of the weights."""
        for tensor in (self._maps, *self._weights):
            tensor.grad = None
        with autocast(self._device, precision=self._precision):
            made = way(self._maps, self._weights, self._k // 2)
        torch.autograd.backward(made, self._above)
        of_maps, *of_weights = [tensor.grad for tensor in (self._maps, *self._weights) if tensor.grad is not None]
        return [made.detach(), of_maps, torch.cat(of_weights)]

    def figures(self, way: Way) -> dict[str, object]:
        """What a way takes and gives, or why it cannot be."""
        try:
            found, again, usual = self.step(way), self.step(way), self.step(grouped)
            taken = microseconds(recorded(lambda: self.step(way), self._device), self._device)
        except RuntimeError as problem:  # such as that there is no deterministic kernel
            return {"error": f"{type(problem).__name__}: {first_line(problem)}"}
        return {
            "microseconds": taken,
            "channels_last": [tensor.is_contiguous(memory_format=torch.channels_last) for tensor in found[:2]],
            "repeats": all(map(torch.equal, found, again)),
            "differs": [float((one - other).norm() / other.norm()) for one, other in zip(found, usual, strict=True)],
        }


def main() -> None:
    """Try each way for each layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.jsonl"), help="figures are added to this file")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin none later than that")
    parser.add_argument("--rehearse", action="store_true", help="for two images")
    given = parser.parse_args()
    device, latest = choose_device(given.device), time.perf_counter() + given.seconds
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for precision, name in ((precision, name) for precision in ("bf16", "default") for name in LAYERS):
        with exact(device, precision=precision, image_shape=(3, 32, 32)):
            layer = Layer(name, precision=precision, batch=2 if given.rehearse else 128, device=device)
            for how, way in layer.ways.items():
                if time.perf_counter() > latest:
                    print(f"for {precision}, {name}, {how} there was no time", flush=True)
                    continue
                line = json.dumps({"part": "strided", "precision": precision, "layer": name, "way": how, **layer.figures(way)})
                print(line, flush=True)
                with given.out.open("a") as file:
                    file.write(f"{line}\n")


if __name__ == "__main__":
    main()
