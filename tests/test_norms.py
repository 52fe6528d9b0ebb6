"""On CUDA, batch norm is torch's own: what torch would start there, which needs no device; tests/test_no_hang.py sees what runs."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

from kdbench.conformance.devices import Operations
from kdbench.models import build_model
from kdbench.training.norms import norms_without_cudnn

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def norms_of(make: Callable[[], nn.Module], *, training: bool) -> set[str]:
    """The norms that torch chooses for a network and images on CUDA that only seem to be there."""
    with FakeTensorMode(), CUDA:
        network, images = make().train(training), torch.empty(2, 3, 32, 32)
        with Operations() as done:
            network(images)
    return {name for name in done.names if "batch_norm" in name}


NORMS: dict[str, Callable[[], nn.Module]] = {
    "own": lambda: build_model("resnet8", num_classes=3, in_channels=3),
    "torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
    "timm": lambda: timm.create_model("test_efficientnet", num_classes=3),
    "instance": lambda: nn.InstanceNorm2d(3, affine=True),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a torch that is built for CUDA")
def test_every_norm_is_torchs_own_on_cuda(kind, training):
    with norms_without_cudnn(CUDA):
        assert norms_of(NORMS[kind], training=training) == {"native_batch_norm.default"}
    with norms_without_cudnn(CPU):
        assert norms_of(NORMS[kind], training=training) == {"cudnn_batch_norm.default"}


def test_convolutions_and_what_comes_after_are_as_before():
    norm = torch.batch_norm
    with norms_without_cudnn(CUDA):
        assert torch._C._get_cudnn_enabled()
        with pytest.raises(RuntimeError, match="running_mean should contain 4 elements"):
            torch.batch_norm(torch.zeros(2, 4), None, None, torch.zeros(1), torch.zeros(1), True, 0.1, 1e-5, True)
        assert torch._C._get_cudnn_enabled()
    with pytest.raises(RuntimeError), norms_without_cudnn(CUDA):
        raise RuntimeError
    assert torch.batch_norm is norm


def test_a_network_is_compiled_as_without_it():
    torch.compiler.reset()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.InstanceNorm2d(4))
    images = torch.randn(2, 3, 8, 8)
    made = CompileCounter()
    compiled = torch.compile(network, fullgraph=True, backend=made)
    for _ in range(2):
        with norms_without_cudnn(CUDA):
            inside = compiled(images)
    assert made.frame_count == 1, "a compilation is good for all blocks"
    torch.testing.assert_close(inside, compiled(images))
    torch.testing.assert_close(inside, network(images))
