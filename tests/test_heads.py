"""Which layers give a network's logits, what is pooled before them, and what methods do with a network that lacks a hook point."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import KdbenchError, PairError, build_method, models
from kdbench.catalogue.model import describe_model, model_as_text
from kdbench.models import MODELS, build_model
from kdbench.models.measure import shapes

WIDTH, CLASSES = 6, 7
SHAPE = (3, 16, 16)
OF_TRANSFORMERS = ("tokens", "heads")


class Headed(nn.Module):
    """A classifier whose maps `head` makes logits of; in training, `extra` is done to these."""

    def __init__(self, head: nn.Module, in_channels: int, extra: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.body = nn.Conv2d(in_channels, WIDTH, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.head = head
        self.extra = extra

    def forward(self, images: Tensor) -> Any:
        logits = self.head(self.relu(self.body(images)))
        return self.extra(logits) if self.training else logits


class Of(nn.Module):
    """Layers, and a function of maps and of them."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, maps: Tensor) -> Any:
        return self.function(maps, *self.layers)


def pooled(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def linear(k: int, **options: bool) -> nn.Module:
    return Of(lambda maps, fc: fc(pooled(maps)), nn.Linear(WIDTH, k, **options))


@pytest.fixture
def register() -> Iterator[Callable[[Callable[[int, int], nn.Module]], object]]:
    """Adds `head_for_test`, made of the numbers of classes and of channels, for as long as the test lasts."""
    restore = MODELS.snapshot()
    models._wiring.cache_clear()  # of the last network of this name

    def add(make: Callable[[int, int], nn.Module]) -> None:
        MODELS.register("head_for_test")(lambda *, num_classes, in_channels: make(num_classes, in_channels))

    yield add
    restore()


# What is pooled


@pytest.mark.parametrize(
    "head",
    [
        linear,
        lambda k: linear(k, bias=False),
        lambda k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH, k, 1), nn.Flatten()),
        lambda k: nn.Sequential(nn.Conv2d(WIDTH, k, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
    ids=["a linear layer", "one without bias", "a convolution of pooled maps", "one before the pooling"],
)
def test_logits_are_a_linear_map_of_what_is_pooled(head, register):
    register(lambda k, channels: Headed(head(k), channels))
    network = build_model("head_for_test", num_classes=CLASSES, hooks=["relu"], image_size=16)
    outputs = network(torch.randn(2, *SHAPE))
    parts = network.teacher_parts()
    assert torch.allclose(outputs.pooled, pooled(outputs.features[0]))
    assert torch.allclose(F.linear(outputs.pooled, parts.classifier_weight, parts.classifier_bias), outputs.logits, atol=1e-6)
    assert (parts.classifier_weight.shape, parts.classifier_bias.shape) == ((CLASSES, WIDTH), (CLASSES,))
    assert network.heads == (network.classifier,)
    assert outputs.shapes().lacking() == OF_TRANSFORMERS


@pytest.mark.parametrize(
    ("head", "heads"),
    [
        (lambda k: nn.Sequential(nn.Conv2d(WIDTH, k, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1),
        (lambda k: Of(lambda x, a, b: (a(pooled(x)) + b(pooled(x))) / 2, nn.Linear(WIDTH, k), nn.Linear(WIDTH, k)), 2),
        (lambda k: Of(lambda x, fc: fc(x.movedim(1, 3).flatten(0, 2)).view(len(x), -1, k).mean(1), nn.Linear(WIDTH, k)), 1),
        (lambda k: nn.Sequential(nn.Conv2d(WIDTH, k, 8), nn.Flatten()), 1),
        (lambda k: Of(lambda x: pooled(x)[:, :1] * torch.ones(k, device=x.device)), 0),
    ],
    ids=["an activation after it", "two that are averaged", "one that reads each place", "a convolution of all places", "none"],
)
def test_other_heads_give_no_pooled_vector(head, heads, register):
    register(lambda k, channels: Headed(head(k), channels))
    network = build_model("head_for_test", num_classes=CLASSES, hooks=["relu"], image_size=16)
    outputs = network(torch.randn(2, *SHAPE))
    assert outputs.shapes().lacking() == ("pooled", "tokens", *(["heads"] if heads < 2 else []), "pooled_maps")
    assert torch.equal(sum(outputs.heads, torch.zeros(())) / 2, outputs.logits) if heads == 2 else outputs.heads == ()
    assert all(tensor.numel() for tensor in outputs.tensors())
    assert (network.classifier, len(network.heads)) == (None, heads)
    assert network.teacher_parts().classifier_weight.numel() == 0


CONVOLUTION = partial(nn.Conv2d, WIDTH, WIDTH, 1)


def normed(k: int) -> tuple[nn.Module, nn.Module]:
    return nn.LayerNorm(WIDTH), nn.Linear(WIDTH, k)


@pytest.mark.parametrize(
    ("head", "module"),
    [
        (lambda k: Of(lambda x, fc: fc(pooled(x)), nn.Linear(WIDTH, k)), "relu"),
        (lambda k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(WIDTH, k)), "relu"),
        (lambda k: Of(lambda x, fc: fc(F.avg_pool2d(x, 8).view(len(x), -1)), nn.Linear(WIDTH, k)), "relu"),
        (lambda k: Of(lambda x, c, fc: fc(pooled(c(x))), CONVOLUTION(), nn.Linear(WIDTH, k)), "head.layers.0"),
        (lambda k: nn.Sequential(CONVOLUTION(), nn.Conv2d(WIDTH, k, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "head.0"),
        (lambda k: Of(lambda x, n, fc: fc(n(x.movedim(1, 3)).mean((1, 2))), *normed(k)), "head.layers.0"),
        (
            lambda k: Of(lambda x, n, fc: fc(pooled(n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))), *normed(k)),
            "head.layers.0",
        ),
        (lambda k: Of(lambda x, n, fc: fc(n(pooled(x))), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, fc: fc(pooled(x).relu()), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, fc: fc(x.amax((2, 3))), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, fc: fc(x[:, :, 0, 0]), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, fc: fc(F.avg_pool2d(x, 7).view(len(x), -1)), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, fc: fc(pooled(x + 1)), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, c, fc: fc(pooled(c(c(x)))), CONVOLUTION(), nn.Linear(WIDTH, k)), None),
        (lambda k: Of(lambda x, fc: fc(x.mean((1, 2))[:, :WIDTH]), nn.Linear(WIDTH, k)), None),
        (lambda k: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * WIDTH, k)), None),
    ],
)
def test_the_maps_that_are_pooled_are_found_where_their_mean_alone_is_classified(head, module, register):
    register(lambda k, channels: Headed(head(k), channels))
    network = build_model("head_for_test", num_classes=CLASSES, hooks=["relu"], image_size=16).eval()
    outputs, found = network(torch.randn(2, *SHAPE)), network.wiring.heads.pooled_maps
    assert (found and found.module) == module
    if module:
        assert torch.allclose(pooled(outputs.pooled_maps), outputs.pooled, atol=1e-6)
        assert torch.allclose(pooled(outputs.classify(outputs.pooled_maps)), outputs.logits, atol=1e-6)
    else:
        assert "pooled_maps" in outputs.shapes().lacking()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision/resnet18", (512, 7, 7)),
        ("torchvision/swin_t", (768, 7, 7)),
        ("torchvision/mobilenet_v2", (1280, 7, 7)),
        ("torchvision/vit_b_16", (0, 0, 0)),
        ("torchvision/convnext_tiny", (0, 0, 0)),
    ],
)
def test_families_whose_classifier_reads_the_mean_of_maps(name, shape):
    assert shapes(name, image_shape=(3, 224, 224), num_classes=CLASSES).pooled_maps == shape


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("torchvision/squeezenet1_1", None),
        ("torchvision/googlenet", "fc"),
        ("timm/dla46_c", "fc"),
    ],
)
def test_networks_with_other_heads_than_a_linear_layer_have_hook_points(name, head):
    pytest.importorskip(name.split("/")[0])
    told = describe_model(name, image_shape=(3, 224, 224), num_classes=CLASSES)
    points = {point["point"]: point for point in told["points"]}
    assert {"stem", "group 1", "group 4"} <= points.keys()
    assert points["logits"]["shape"] == (CLASSES,)
    assert (points["pooled"]["module"] if head else told["lacking"]) == (
        f"input of {head}"
        if head
        else {
            "pooled": "its logits do not come from a linear layer of one vector",
            "pooled_maps": "its classifier reads anything else than the plain mean of maps that a module gives",
        }
    )


# What a network lacks


def flat(k: int, channels: int) -> nn.Module:
    """A classifier without maps."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 16 * 16, WIDTH), nn.ReLU(), nn.Linear(WIDTH, k))


def test_a_network_without_maps_needs_no_hooks_and_gives_the_rest(register):
    register(flat)
    network = build_model("head_for_test", num_classes=CLASSES, image_size=16)
    outputs = network(torch.randn(2, *SHAPE))
    assert outputs.shapes().lacking() == ("stem", "features", "preactivations", "raw", *OF_TRANSFORMERS, "pooled_maps")
    assert torch.equal(network.classifier(outputs.pooled), outputs.logits)
    told = model_as_text(describe_model("head_for_test", image_shape=SHAPE, num_classes=CLASSES))
    assert told.splitlines()[1:] == [
        "  point   shape  module      pre-activation  batch norm before it",
        "  pooled  6      input of 3",
        "  logits  7      3",
        "no stem: none of its modules gives maps",
        "no features: none of its modules gives maps",
        "no pooled_maps: its classifier reads anything else than the plain mean of maps that a module gives",
        f"{3 * 256 * 6 + 6 + 6 * 7 + 7:,} parameters, 0.00 M multiply-accumulates",
    ]


class Bare(nn.Module):
    """Its `forward` applies an activation itself, between a norm and the mean that the classifier reads."""

    def __init__(self, activation: Callable[[Tensor], Tensor], k: int, channels: int) -> None:
        super().__init__()
        self.activation = activation  # a submodule, where it is a module
        self.convolution, self.norm = nn.Conv2d(channels, WIDTH, 3), nn.BatchNorm2d(WIDTH)
        self.fc = nn.Linear(WIDTH, k)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.activation(self.norm(self.convolution(images))).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("activation", "function"),
    [(torch.relu, "relu"), (partial(F.relu, inplace=True), "relu"), (F.gelu, "gelu"), (nn.ReLU(), ""), (lambda maps: maps, "")],
    ids=["relu", "relu in place", "gelu", "a module", "none"],
)
def test_an_activation_that_no_hook_sees_is_told_of(activation, function, register):
    register(lambda k, channels: Bare(activation, k, channels))
    hook = "convolution" if isinstance(activation, partial) else "norm"  # what is overwritten can be none
    found = describe_model("head_for_test", image_shape=SHAPE, num_classes=CLASSES, hooks=[hook])
    assert found["followed_by"] == ({"norm": function} if function and hook == "norm" else {})
    fix = "In a network of your own make that a module, such as `self.relu = nn.ReLU()`"
    why = f"its classifier reads the mean of what {function} gives, which `forward` applies itself: no hook sees that. {fix}"
    assert found["lacking"] == ({"pooled_maps": why} if function else {})
    said = f"norm: methods read the maps before {function}, which `forward` applies itself. {fix}, and name it as the hook"
    assert (said in model_as_text(found).splitlines()) == bool(found["followed_by"])


def test_a_method_is_refused_what_it_reads_and_a_network_lacks_and_others_are_not(register):
    register(flat)
    images = torch.randn(4, *SHAPE)
    lacking = build_model("head_for_test", num_classes=CLASSES, image_size=16)(images)
    whole = build_model("resnet8", num_classes=CLASSES)(images)
    for method in ("kd", "rkd"):
        build_method(method, student=lacking, teacher=whole)
        build_method(method, student=whole, teacher=lacking)
    for student, teacher, whose in ((whole, lacking, "teacher"), (lacking, whole, "student")):
        with pytest.raises(PairError) as error:
            build_method("fsp", student=student, teacher=teacher)
        assert str(error.value) == f"fsp: it reads stem, features, and the {whose} has none; choose another {whose}"


# Networks that cannot be


def stacked(k: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, k))


REFUSED = {
    "probabilities": (
        lambda k, c: Headed(nn.Sequential(linear(k), nn.Softmax(dim=1)), c),
        "head_for_test gives probabilities, and losses take logits. Leave its last softmax or sigmoid out.",
    ),
    "a tuple": (
        lambda k, c: Headed(Of(lambda x, fc: (fc(pooled(x)), x), nn.Linear(WIDTH, k)), c),
        "head_for_test gives a tuple for 10 classes, and not a tensor with one logit for each. End it with "
        "`num_classes` outputs, and give them alone.",
    ),
    "a tuple in training": (
        lambda k, c: Headed(linear(k), c, extra=lambda logits: (logits, logits)),
        "head_for_test: in training it gives a tuple, and not logits alone. Let it leave out what else it gives.",
    ),
    "always as many classes": (
        lambda k, c: Headed(linear(1000), c),
        "head_for_test gives Bx1000 for 10 classes, and not a tensor with one logit for each. End it with "
        "`num_classes` outputs, and give them alone.",
    ),
    "ten classes whatever it is asked for": (
        lambda k, c: Headed(linear(10), c),
        f"head_for_test gives 10 logits for {CLASSES} classes. Build its last layer with the `num_classes` that it is given.",
    ),
    "as many channels as it likes": (
        lambda k, c: Headed(linear(k), 4),
        "head_for_test cannot take images of 3x16x16 (Invalid channel dimensions). Build its first layer with the "
        "`in_channels` that it is given, here 3.",
    ),
    "a layer of unknown size": (
        lambda k, c: Headed(nn.Sequential(nn.Flatten(), nn.LazyLinear(k)), c),
        "model 'head_for_test' has lazy layers (head.1). Give their sizes, as in nn.Linear(64, 10).",
    ),
    "no module": (lambda k, c: "resnet18", "model 'head_for_test' gives a str. Let it give a torch.nn.Module."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_would_fail_in_training_is_refused_before_it(case, register):
    make, message = REFUSED[case]
    register(make)
    with pytest.raises(KdbenchError) as error:
        shapes("head_for_test", image_shape=SHAPE, num_classes=CLASSES, hooks=("relu",))
    assert str(error.value) == message


def test_a_constructor_that_computes_and_draws_is_no_hindrance(register):
    """Neither to blank networks, which are on the meta device, nor to what others draw afterwards."""

    def make(k: int, channels: int) -> nn.Module:
        network = Headed(linear(k), channels)
        network.depth = int(torch.rand(3).sum())  # asks for numbers
        return network

    register(make)
    before = torch.get_rng_state()
    found = shapes("head_for_test", image_shape=SHAPE, num_classes=CLASSES, hooks=("relu",))
    assert found.features == ((WIDTH, 8, 8),)
    assert torch.equal(torch.get_rng_state(), before)


# Modules that are called more than once


class Shared(nn.Module):
    """A classifier with one ReLU for all."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(in_channels, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.relu(self.norm(self.first(images)))
        logits: Tensor = self.fc(pooled(self.relu(self.second(stem))))
        return logits


def test_a_stem_is_its_own_activation_even_where_that_is_used_again(register):
    register(Shared)
    network = build_model("head_for_test", num_classes=CLASSES, hooks=["second"], image_size=16).eval()
    images = torch.randn(2, *SHAPE)
    outputs = network(images)
    assert torch.equal(outputs.stem, F.relu(network.body.norm(network.body.first(images))))
    assert torch.equal(outputs.features[0], network.body.second(outputs.stem))


def test_a_hook_is_a_module_that_is_called_once(register):
    register(Shared)
    with pytest.raises(KdbenchError) as error:
        build_model("head_for_test", hooks=["relu"])
    assert str(error.value) == (
        "head_for_test, hooks: 'relu' is called 2 times in a pass. Name a module that is called once; `kdbench show model "
        "head_for_test --modules` lists those that can be hooks."
    )


def test_of_a_block_that_gives_several_things_the_first_is_hooked(register):
    """As RepDistiller's last blocks give their maps and what these were before the activation."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

        def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
            before = self.conv(maps)
            before += maps  # overwrites what the convolution gives
            return F.relu(before), before

    register(lambda k, c: Headed(Of(lambda x, block, fc: fc(pooled(block(x)[0])), Block(), nn.Linear(WIDTH, k)), c))
    network = build_model("head_for_test", num_classes=CLASSES, hooks=["relu", "head.layers.0"], image_size=16)
    outputs = network(torch.randn(2, *SHAPE))
    assert torch.equal(outputs.features[1], network.body.head.layers[0](outputs.features[0])[0])
    with pytest.raises(KdbenchError, match=r"what 'head\.layers\.0\.conv' gives is overwritten by the operation after it; "):
        build_model("head_for_test", hooks=["head.layers.0.conv"])
