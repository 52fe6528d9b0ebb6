"""A network's pass through torch.compile, whose compilation is done, and timed, before the pass is used."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.outputs import Outputs


class Compiled:
    """Calls `network` compiled. The network stays as it is, with its parameters, buffers and modes."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._call: Any = torch.compile(network, dynamic=False)
        self._prepared: set[object] = set()

    def prepare(self, images: Tensor) -> float:
        """Compile for images (B, C, H, W) of this shape, forward and backward; once, and without a trace in the network.

        Call it under the autocast and the gradient mode of the passes to come.

        Returns:
            Seconds, 0 where it was done before.
        """
        key = (images.shape, torch.is_grad_enabled(), torch.is_autocast_enabled(images.device.type))
        if key in self._prepared:
            return 0.0
        began = time.perf_counter()
        buffers = {name: buffer.clone() for name, buffer in self._network.named_buffers()}
        outputs = self(images)
        total = torch.stack([tensor.float().sum() for tensor in outputs.tensors()]).sum()
        if total.requires_grad:
            torch.autograd.grad(total, [p for p in self._network.parameters() if p.requires_grad])
        for name, buffer in self._network.named_buffers():
            buffer.copy_(buffers[name])
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        self._prepared.add(key)
        return time.perf_counter() - began

    def __call__(self, images: Tensor) -> Outputs:
        outputs: Outputs = self._call(images)
        return outputs
