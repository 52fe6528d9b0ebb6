"""On CUDA, batch norm is torch's own: what torch is asked for, which needs no device; tests/test_no_hang.py sees what runs."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from kdbench.models import build_model
from kdbench.training.norms import norms_without_cudnn

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every batch or instance norm, whether torch may take cuDNN's."""
    found: list[bool] = []

    def noted(norm: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: object) -> torch.Tensor:
            found.append(torch._C._get_cudnn_enabled())
            return norm(*args)

        return call

    for name in ("batch_norm", "instance_norm"):
        monkeypatch.setattr(torch, name, noted(getattr(torch, name)))
    return found


NORMS: dict[str, Callable[[], nn.Module]] = {
    "own": lambda: build_model("resnet8", num_classes=3, in_channels=3),
    "torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
    "timm": lambda: timm.create_model("test_efficientnet", num_classes=3),
    "instance": lambda: nn.InstanceNorm2d(3),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("training", [True, False])
def test_every_norm_is_torchs_own_on_cuda_and_nothing_changes_on_the_cpu(asked, kind, training):
    network, images = NORMS[kind]().train(training), torch.randn(2, 3, 32, 32)
    with norms_without_cudnn(CUDA):
        network(images)
    assert asked and not any(asked)
    asked.clear()
    with norms_without_cudnn(CPU):
        network(images)
    network(images)
    assert asked and all(asked)


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
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with norms_without_cudnn(CUDA):
        inside = compiled(images)
    torch.testing.assert_close(inside, compiled(images))
    torch.testing.assert_close(inside, network(images))
