"""Checkpoints of other programs: the same tensors by other names give the same logits, and what only looks the same is refused."""

import re
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import KdbenchError
from kdbench.models import build_model
from kdbench.models.start_weights import Fit, fit

CLASSES = 3
CRD = "RepDistiller and mdistiller"


class Theirs:
    """Another program's network, drawn as its forward pass asks for tensors by that program's names: `state` is its checkpoint."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(0)

    def draw(self, name: str, *shape: int, mean: float = 0.0, scale: float = 0.3) -> Tensor:
        drawn = torch.empty(shape, dtype=torch.float64).uniform_(-1, 1, generator=self.random)
        self.state[name] = mean + scale * drawn
        return self.state[name]

    def conv(self, x: Tensor, name: str, width: int, size: int, *, stride: int = 1, groups: int = 1, bias: bool = False) -> Tensor:
        fan = x.shape[1] // groups * size**2
        weight = self.draw(f"{name}.weight", width, x.shape[1] // groups, size, size, scale=(6 / fan) ** 0.5)
        return F.conv2d(x, weight, self.draw(f"{name}.bias", width) if bias else None, stride, size // 2, groups=groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.draw(f"{name}.weight", x.shape[1], mean=1), self.draw(f"{name}.bias", x.shape[1])
        mean, var = self.draw(f"{name}.running_mean", x.shape[1]), self.draw(f"{name}.running_var", x.shape[1], mean=1)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, mean, var, weight, bias)

    def classify(self, x: Tensor, name: str) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.linear(pooled, self.draw(f"{name}.weight", CLASSES, x.shape[1]), self.draw(f"{name}.bias", CLASSES))


def residual(n: Theirs, x: Tensor, widths: Sequence[int], blocks: int, shortcut: str, fc: str) -> Tensor:
    """RepDistiller's resnet.py and, with other names of shortcut and classifier, those that pytorch-cifar's is the model for."""
    x = n.norm(n.conv(x, "conv1", widths[0], 3), "bn1").relu()
    for g, width in enumerate(widths[1:], 1):
        for j in range(blocks):
            stride, at = 2 if g > 1 and j == 0 else 1, f"layer{g}.{j}"
            y = n.norm(n.conv(x, f"{at}.conv1", width, 3, stride=stride), f"{at}.bn1").relu()
            y = n.norm(n.conv(y, f"{at}.conv2", width, 3), f"{at}.bn2")
            if stride > 1 or x.shape[1] != width:
                x = n.norm(n.conv(x, f"{at}.{shortcut}.0", width, 1, stride=stride), f"{at}.{shortcut}.1")
            x = (x + y).relu()
    return n.classify(x, fc)


def option_a(n: Theirs, x: Tensor) -> Tensor:
    """pytorch_resnet_cifar10's, whose shortcuts take every second pixel and pad the channels with zeros."""
    x = n.norm(n.conv(x, "conv1", 16, 3), "bn1").relu()
    for g, width in enumerate((16, 32, 64), 1):
        y = n.norm(n.conv(x, f"layer{g}.0.conv1", width, 3, stride=2 if g > 1 else 1), f"layer{g}.0.bn1").relu()
        y = n.norm(n.conv(y, f"layer{g}.0.conv2", width, 3), f"layer{g}.0.bn2")
        x = (y + (F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, width // 4, width // 4)) if g > 1 else x)).relu()
    return n.classify(x, "linear")


def bottlenecks(
    n: Theirs, x: Tensor, stem: str, block: Callable[[int, int], str], inner: Sequence[tuple[str, str]], fc: str
) -> Tensor:
    """RepDistiller's resnetv2.py, which is pytorch-cifar's, and pytorch-cifar100's resnet.py; `inner` names conv and norm."""
    conv, norm = stem.split()
    x = n.norm(n.conv(x, conv, 64, 3), norm).relu()
    for g, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for j in range(blocks):
            stride, at, y = 2 if g and j == 0 else 1, block(g, j), x
            for k, (conv, norm) in enumerate(inner):
                y = n.conv(y, f"{at}.{conv}", (1, 1, 4)[k] * width, (1, 3, 1)[k], stride=(1, stride, 1)[k])
                y = n.norm(y, f"{at}.{norm}")
                y = y.relu() if k < 2 else y
            x = (
                y + (n.norm(n.conv(x, f"{at}.shortcut.0", 4 * width, 1, stride=stride), f"{at}.shortcut.1") if j == 0 else x)
            ).relu()
    return n.classify(x, fc)


def wide(n: Theirs, x: Tensor, widening: int, blocks: int) -> Tensor:
    """RepDistiller's wrn.py: pre-activation; a projection reads the activation, and the identity what came before it."""
    x = n.conv(x, "conv1", 16, 3)
    for g, width in enumerate((16, 32, 64), 1):
        for j in range(blocks):
            stride, at, out = 2 if g > 1 and j == 0 else 1, f"block{g}.layer.{j}", widening * width
            active = n.norm(x, f"{at}.bn1").relu()
            y = n.norm(n.conv(active, f"{at}.conv1", out, 3, stride=stride), f"{at}.bn2").relu()
            x = n.conv(y, f"{at}.conv2", out, 3) + (
                n.conv(active, f"{at}.convShortcut", out, 1, stride=stride) if x.shape[1] != out else x
            )
    return n.classify(n.norm(x, "bn1").relu(), "fc")


def vgg(n: Theirs, x: Tensor, groups: Sequence[int]) -> Tensor:
    """RepDistiller's vgg.py with batch norm; on images of 64 pixels it pools once more, before its last group."""
    for g, (width, convs) in enumerate(zip((64, 128, 256, 512, 512), groups, strict=True)):
        for j in range(convs):
            x = n.norm(n.conv(x, f"block{g}.{3 * j}", width, 3, bias=True), f"block{g}.{3 * j + 1}").relu()
        x = F.max_pool2d(x, 2) if g < 3 or (g == 3 and x.shape[2] == 8) else x
    return n.classify(x, "classifier")


def vgg_in_one_sequence(n: Theirs, x: Tensor) -> Tensor:
    """pytorch-cifar's vgg.py, VGG11: a pooling after each of five groups."""
    i = 0
    for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if width == "M":
            x, i = F.max_pool2d(x, 2), i + 1
        else:
            x, i = n.norm(n.conv(x, f"features.{i}", int(width), 3, bias=True), f"features.{i + 1}").relu(), i + 3
    return n.classify(x, "classifier")


def mobile(n: Theirs, x: Tensor) -> Tensor:
    """RepDistiller's mobilenetv2.py at half width."""
    x = n.norm(n.conv(x, "conv1.0", 16, 3, stride=2), "conv1.1").relu()
    sections = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
    for s, (expansion, width, blocks, stride) in enumerate(sections):
        for j in range(blocks):
            at, inner, by = f"blocks.{s}.{j}.conv", expansion * x.shape[1], stride if j == 0 else 1
            y = n.norm(n.conv(x, f"{at}.0", inner, 1), f"{at}.1").relu()
            y = n.norm(n.conv(y, f"{at}.3", inner, 3, stride=by, groups=inner), f"{at}.4").relu()
            y = n.norm(n.conv(y, f"{at}.6", width, 1), f"{at}.7")
            x = x + y if by == 1 and x.shape[1] == width else y
    return n.classify(n.norm(n.conv(x, "conv2.0", 1280, 1), "conv2.1").relu(), "classifier.0")


def shuffled(x: Tensor, groups: int) -> Tensor:
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def shuffle_v1(n: Theirs, x: Tensor) -> Tensor:
    """RepDistiller's ShuffleNetv1.py."""
    x = n.norm(n.conv(x, "conv1", 24, 1), "bn1").relu()
    for g, (out, blocks) in enumerate(((240, 4), (480, 8), (960, 4)), 1):
        for j in range(blocks):
            at, width, stride = f"layer{g}.{j}", out - x.shape[1] if j == 0 else out, 2 if j == 0 else 1
            entry = 1 if x.shape[1] == 24 else 3
            y = shuffled(n.norm(n.conv(x, f"{at}.conv1", width // 4, 1, groups=entry), f"{at}.bn1").relu(), entry)
            y = n.norm(n.conv(y, f"{at}.conv2", width // 4, 3, stride=stride, groups=width // 4), f"{at}.bn2").relu()
            y = n.norm(n.conv(y, f"{at}.conv3", width, 1, groups=3), f"{at}.bn3")
            x = (torch.cat((y, F.avg_pool2d(x, 3, 2, 1)), 1) if j == 0 else y + x).relu()
    return n.classify(x, "linear")


def shuffle_v2(n: Theirs, x: Tensor) -> Tensor:
    """RepDistiller's ShuffleNetv2.py."""
    x = n.norm(n.conv(x, "conv1", 24, 1), "bn1").relu()
    for g, (out, blocks) in enumerate(((116, 3), (232, 7), (464, 3)), 1):
        for j in range(blocks + 1):
            at, half = f"layer{g}.{j}", out // 2
            if j == 0:
                left = n.norm(n.conv(x, f"{at}.conv1", x.shape[1], 3, stride=2, groups=x.shape[1]), f"{at}.bn1")
                left = n.norm(n.conv(left, f"{at}.conv2", half, 1), f"{at}.bn2").relu()
            else:
                left, x = x.chunk(2, 1)
            k = 3 if j == 0 else 1
            y = n.norm(n.conv(x, f"{at}.conv{k}", half, 1), f"{at}.bn{k}").relu()
            y = n.norm(n.conv(y, f"{at}.conv{k + 1}", half, 3, stride=2 if j == 0 else 1, groups=half), f"{at}.bn{k + 1}")
            y = n.norm(n.conv(y, f"{at}.conv{k + 2}", half, 1), f"{at}.bn{k + 2}").relu()
            x = shuffled(torch.cat((left, y), 1), 2)
    return n.classify(n.norm(n.conv(x, "conv2", 1024, 1), "bn2").relu(), "linear")


NUMBERED = [(f"conv{k}", f"bn{k}") for k in (1, 2, 3)]
IN_SEQUENCE = [(f"residual_function.{k}", f"residual_function.{k + 1}") for k in (0, 3, 6)]
SAME: dict[str, tuple[str, str, Callable[[Theirs, Tensor], Tensor]]] = {
    "thin": ("resnet14", CRD, lambda n, x: residual(n, x, (16, 16, 32, 64), 2, "downsample", "fc")),
    "wider": ("resnet8x4", CRD, lambda n, x: residual(n, x, (32, 64, 128, 256), 1, "downsample", "fc")),
    "option B": ("resnet8", "pytorch_resnet_cifar10", lambda n, x: residual(n, x, (16, 16, 32, 64), 1, "shortcut", "linear")),
    "bottlenecks": (
        "resnet50_cifar",
        CRD,
        lambda n, x: bottlenecks(n, x, "conv1 bn1", lambda g, j: f"layer{g + 1}.{j}", NUMBERED, "linear"),
    ),
    "residual functions": (
        "resnet50_cifar",
        "pytorch-cifar100",
        lambda n, x: bottlenecks(n, x, "conv1.0 conv1.1", lambda g, j: f"conv{g + 2}_x.{j}", IN_SEQUENCE, "fc"),
    ),
    "wide": ("wrn_16_2", CRD, lambda n, x: wide(n, x, 2, 2)),
    "as wide as before": ("wrn_10_1", CRD, lambda n, x: wide(n, x, 1, 1)),
    "vgg": ("vgg11", CRD, lambda n, x: vgg(n, x, (1, 1, 2, 2, 2))),
    "vgg with a deep stem": ("vgg13", CRD, lambda n, x: vgg(n, x, (2, 2, 2, 2, 2))),
    "mobile": ("mobilenetv2_half", CRD, mobile),
    "shuffle": ("shufflenetv1", CRD, shuffle_v1),
    "shuffle and split": ("shufflenetv2", CRD, shuffle_v2),
}
OTHER: dict[str, tuple[str, int, Callable[[Theirs, Tensor], Tensor], str]] = {
    "option A": (
        "resnet8",
        32,
        option_a,
        "they are of a ResNet whose shortcuts pad with zeros (option A), and the shortcuts of this ",
    ),
    "five poolings": (
        "vgg11",
        32,
        vgg_in_one_sequence,
        "they are of a VGG that pools after its last group, too, which this one does",
    ),
    "a fourth pooling": (
        "vgg11",
        64,
        lambda n, x: vgg(n, x, (1, 1, 2, 2, 2)),
        "they are of RepDistiller's VGG, which pools once more ",
    ),
}


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def fitted(model: str, state: dict[str, Tensor], image_size: int) -> tuple[Fit, torch.nn.Module]:
    network = build_model(model, num_classes=CLASSES).double().eval()
    return fit(state, network, whole=True, model=model, image_size=image_size), network


@torch.no_grad()
@pytest.mark.parametrize("case", SAME)
def test_the_same_network_by_other_names_gives_the_same_logits(case):
    model, whose, forward = SAME[case]
    theirs, x = Theirs(), images(8 if "50" in model else 32)
    logits = forward(theirs, x)
    found, network = fitted(model, {f"module.{name}": tensor for name, tensor in theirs.state.items()}, 32)
    assert found.notes == (f"have their names as in {whose}",)
    assert found.state.keys() == network.state_dict().keys()
    network.load_state_dict(dict(found.state))
    torch.testing.assert_close(network(x).logits, logits, rtol=1e-9, atol=1e-9)
    assert logits.std(0).min() > 1e-3, "images that are told apart"


@torch.no_grad()
@pytest.mark.parametrize("case", OTHER)
def test_another_network_with_the_same_tensors_is_refused(case):
    model, size, forward, message = OTHER[case]
    theirs = Theirs()
    forward(theirs, images(size))
    with pytest.raises(KdbenchError, match=f"^{re.escape(message)}"):
        fitted(model, theirs.state, size)
