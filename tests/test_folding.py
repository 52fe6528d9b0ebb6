"""A frozen teacher computes what the network that was trained computes, with fewer operations."""

import pytest
import torch
from torch import nn

from kdbench.models import build_model
from kdbench.models.folding import folded
from kdbench.spec.recipe import SGD, Recipe
from kdbench.streams import seeded
from kdbench.training.frozen_teacher import FrozenTeacher

RECIPE = Recipe(epochs=1, batch_size=4, optimiser=SGD(lr=0.1))
FOLDED = {"resnet20": (21, 21), "wrn_40_2": (19, 37), "vgg8": (5, 5), "mobilenetv2_half": (53, 53), "shufflenetv2": (56, 56)}
"""Of each network the batch norms that can be folded, and all that it has."""


def trained(name: str) -> nn.Module:
    """A network whose batch norms have statistics and affine parameters that are not those of a new one."""
    with seeded(0, name):
        network = build_model(name)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.uniform_(-0.5, 0.5)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", FOLDED)
def test_every_hook_point_keeps_its_values(name):
    network = trained(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copy, count = folded(network, image_shape=(3, 32, 32))
    assert (count, norms(network)) == FOLDED[name]
    assert norms(copy) == norms(network) - count
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, expected in zip(copy(images).tensors(), network(images).tensors(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def test_a_norm_whose_convolution_is_read_elsewhere_stays():
    """The trunk of a wide network goes past the first batch norm: folding it would change what the shortcut carries."""
    copy, _ = folded(trained("wrn_16_1"), image_shape=(3, 32, 32))
    assert isinstance(copy.norm, nn.BatchNorm2d)


class Rectified(nn.BatchNorm2d):
    """A norm with an activation in it, as timm has them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).relu()


@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm2d(16, track_running_stats=False), lambda: Rectified(16)])
def test_a_norm_that_is_not_the_plain_one_stays(norm):
    network = trained("resnet8")
    network.stem.norm = norm().eval()
    copy, count = folded(network, image_shape=(3, 32, 32))
    assert (count, type(copy.stem.norm)) == (8, type(network.stem.norm))


def test_the_teacher_that_methods_ask_is_the_one_that_was_trained():
    network = trained("resnet8")
    parts = network.teacher_parts()
    teacher = FrozenTeacher(network, image_shape=(3, 32, 32), recipe=RECIPE, device=torch.device("cpu"))
    assert teacher.norms_folded == norms(network) == 9
    assert all(map(torch.equal, teacher.network.teacher_parts().norms[2], parts.norms[2]))


@pytest.mark.parametrize("which", ["network", "_folded"])
def test_a_change_of_the_teacher_is_seen(which):
    teacher = FrozenTeacher(trained("resnet8"), image_shape=(3, 32, 32), recipe=RECIPE, device=torch.device("cpu"))
    teacher.assert_unchanged()
    next(getattr(teacher, which).parameters()).data[0] += 1e-3
    with pytest.raises(AssertionError, match="the teacher was changed"):
        teacher.assert_unchanged()
