"""A network's pass through torch.compile, whose compilation is done, and timed, before the pass is used."""

import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method.outputs import Outputs
from kdbench.training.autograd import learners, tell_learners
from kdbench.training.evaluation import buffers_kept

UNLIMITED = 2**31 - 1


class Compiled:
    """Calls `network` compiled. The network stays as it is, with its parameters, buffers and modes.

    Networks of one architecture share one compilation, which takes parameters and buffers as it takes the images.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        # `deterministic`: else inductor chooses kernels, and with them the rounding, by how fast they happen to be on CUDA.
        # Cooperative kernels, for which a variable of the environment can ask, have blocks that wait for each other: beside others
        # like them they might wait for ever.
        options: dict[str, Any] = {"deterministic": True, "triton.cooperative_reductions": False}
        self._call: Any = torch.compile(network, dynamic=False, options=options)
        self._prepared: set[object] = set()
        self._learners: list[list[Tensor]] = []

    def prepare(self, images: Tensor) -> float:
        """Compile for images (B, C, H, W) of this shape, forward and backward; once, and without a trace in the network.

        Call it under the autocast and the gradient mode of the passes to come.

        Returns:
            Seconds, 0 where it was done before.
        """
        if _kind(images) in self._prepared:
            return 0.0
        began = time.perf_counter()
        # The limit counts all networks of a class and all shapes; past it a pass would silently run uncompiled.
        unlimited = torch._dynamo.config.patch(recompile_limit=UNLIMITED, accumulated_recompile_limit=UNLIMITED)
        with unlimited, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TensorFloat32")  # advice that the recipe's precision answers
            warnings.filterwarnings("ignore", message="The .grad attribute")  # the compiler looks at it, of joined weights, too
            self._pass(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        self._prepared.add(_kind(images))
        return time.perf_counter() - began

    def _pass(self, images: Tensor) -> None:
        """Forward and backward, without a trace in the network."""
        with buffers_kept(self._network):
            uncompiled: Outputs = self._network(images)
            self._learners = [[*learners(tensor)] for tensor in uncompiled.tensors()]
            del uncompiled  # its maps
            outputs: Outputs = self._call(images)
            total = torch.stack([tensor.float().sum() for tensor in outputs.tensors()]).sum()
            if total.requires_grad:
                torch.autograd.grad(total, [*learners(total)], allow_unused=True)  # as what is read without a gradient

    def __call__(self, images: Tensor) -> Outputs:
        """The network's outputs, by its compiled pass where that was prepared, as it is for training."""
        if _kind(images) not in self._prepared:
            plain: Outputs = self._network(images)
            return plain
        outputs: Outputs = self._call(images)
        # Compiled, the network is one node, which gives zeros to what the losses do not reach, and an optimiser would decay that.
        for tensor, found in zip(outputs.tensors(), self._learners, strict=True):
            tell_learners(tensor, found)
        return outputs


def _kind(images: Tensor) -> object:
    """What a compiled pass is good for."""
    return images.shape, torch.is_grad_enabled(), torch.is_autocast_enabled(images.device.type)
