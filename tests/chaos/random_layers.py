"""Random layers on this CPU, in fp32 and bf16, against float64: `MALLOC_PERTURB_=1 python tests/chaos/random_layers.py`.

It looks for what torch computes wrongly, as `why_wrong` in `kdbench/training/miscomputed.py` lists it, with a new version of
torch or on another CPU; `ONEDNN_MAX_CPU_ISA=AVX2` is an older one. Freed memory is filled with NaN first. Each layer is a number,
and a process, which may die. It prints one line of JSON for each layer that is wrong, and ends with status 1 where kdbench would
train it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.training.miscomputed import why_wrong

TOLERANCE = {True: 0.06, False: 1e-4}
"""By whether it is in bf16: of the largest number of a tensor."""


class Products(nn.Module):
    """The products of all places of maps with each other."""

    def forward(self, maps: Tensor) -> Tensor:
        """From (B, C, H, W) to (B, HW, HW)."""
        places = maps.flatten(2)
        return places.mT @ places


def drawn_layer(draw: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer, and the shape of what it is given."""
    height = draw.choice([1, 1, 2, 3, 4, 5, 7, 8, 9, 14, 16, 17, 31, 32, 33])
    width = height if draw.random() < 0.8 else draw.choice([1, 2, 3, 5, 8, 13])
    channels, batch = draw.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 30, 32, 48, 64]), draw.choice([1, 2, 3, 5, 8, 16, 33])
    shape, kernel = (batch, channels, height, width), draw.choice([1, 1, 1, 2, 3, 3, 3, 5, 7])
    kind = draw.choice(["convolution"] * 10 + ["linear", "maximum", "mean", "adaptive", "products"])
    if kind == "convolution":
        groups = draw.choice([1, 1, channels, draw.choice([g for g in (1, 2, 3, 4, 8, 16) if channels % g == 0])])
        out = groups * draw.choice([1, 2, 3, 4]) if groups > 1 else draw.choice([1, 3, 4, 7, 8, 10, 16, 32, 64])
        dilation, stride = draw.choice([1, 1, 1, 2, 3]), draw.choice([1, 1, 2, 2, 3, 4])
        padding = draw.choice([0, kernel // 2, kernel // 2, dilation * (kernel - 1) // 2])
        return nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias=draw.random() < 0.5), shape
    if kind == "linear":
        places = () if draw.random() < 0.5 else (height,)
        return nn.Linear(channels, draw.choice([1, 3, 7, 10, 16, 64, 100])), (batch, *places, channels)
    if kind == "adaptive":
        return nn.AdaptiveAvgPool2d(draw.choice([1, 2, 3, 4, 7])), shape
    if kind == "products":
        return Products(), shape
    window, step = draw.choice([2, 3, height]), draw.choice([1, 2, 3])
    return (nn.MaxPool2d if kind == "maximum" else nn.AvgPool2d)(window, step, draw.choice([0, window // 2])), shape


def passed(layer: nn.Module, given: Tensor, weights: Tensor, *, bf16: bool) -> dict[str, Tensor]:
    """What a layer gives, and the gradients of its weighted sum."""
    given = given.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        made = layer(given)
    before = made.detach().clone()
    for numbers in (1 << 12, 1 << 16, 1 << 20):
        blocks = [torch.full((numbers,), torch.nan) for _ in range(4)]
        del blocks
    made.backward(weights.to(made.dtype).view_as(made))
    assert given.grad is not None
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters() if parameter.grad is not None}
    return {"output": before, "input": given.grad, **gradients}


def wrong(layer: nn.Module, shape: tuple[int, ...], *, bf16: bool, channels_last: bool) -> dict[str, float]:
    """By tensor, by what part of its largest number it is wrong."""
    given = torch.randn(shape).bfloat16().float()  # which both precisions can hold
    for parameter in layer.parameters():
        parameter.data = parameter.data.bfloat16().float()
    weights = torch.randn(layer(given).shape).bfloat16().float()
    expected = passed(deepcopy(layer).double(), given.double(), weights.double(), bf16=False)
    if channels_last and given.ndim == 4:
        layer, given = layer.to(memory_format=torch.channels_last), given.contiguous(memory_format=torch.channels_last)
    found = passed(layer, given, weights, bf16=bf16)
    errors = {name: float((found[name] - right).abs().max() / (right.abs().max() + 0.01)) for name, right in expected.items()}
    return {name: error for name, error in errors.items() if not error <= TOLERANCE[bf16]}


def tried(number: int) -> dict[str, Any]:
    """What is wrong with a layer, if anything, and whether kdbench refuses to train it."""
    draw = random.Random(number)
    torch.manual_seed(number)
    layer, shape = drawn_layer(draw)
    bf16, channels_last = draw.random() < 0.5, draw.random() < 0.7
    told = {"layer": number, "is": str(layer), "given": shape, "bf16": bf16, "channels_last": channels_last}
    try:
        layer(torch.zeros(shape))
    except RuntimeError:  # no such layer can be
        return {}
    if math.prod(shape) * sum(map(Tensor.numel, layer.parameters())) > 2e8:
        return {}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, json.dumps(wrong(layer, shape, bf16=bf16, channels_last=channels_last)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    died = os.waitpid(child, 0)[1]
    if not died and text == "{}":
        return {}
    refused = isinstance(layer, nn.Conv2d) and bool(why_wrong(layer, (shape[2], shape[3]), bf16=bf16))
    return {**told, "wrong": f"the process died: {died}" if died else json.loads(text), "refused": refused}


def main() -> int:
    """Try layers until they are done or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the number of the first layer")
    parser.add_argument("--layers", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=60, help="begin none later than that")
    given = parser.parse_args()
    torch.set_num_threads(1)
    latest, failed, number = time.monotonic() + 60 * given.minutes, False, given.first
    for number in range(given.first, given.first + given.layers):
        if time.monotonic() > latest:
            break
        if found := tried(number):
            failed = failed or not found["refused"]
            print(json.dumps(found), flush=True)
    print(json.dumps({"layers": number - given.first + 1}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
