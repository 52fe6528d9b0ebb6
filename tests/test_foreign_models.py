"""Networks of torchvision and timm, and plain modules: hook points that mean what they mean in our own, and no number changed."""

import copy
import gc
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from kdbench import KdbenchError, cli, models
from kdbench.catalogue.model import describe_model, modules_of
from kdbench.data import Dataset, SourceParams, Split
from kdbench.models import MODELS, Network, build_model
from kdbench.models.hooked import AveragePooling, Hooked
from kdbench.models.measure import macs, parameters, shapes
from kdbench.suite.plugins import load_shipped
from kdbench.training.builder import Builder

load_shipped()

AT_224 = {
    # stem and groups at 224x224, the modules of the groups, and what the classifier reads
    "resnet34": ("64x112x112 64x56x56 128x28x28 256x14x14 512x7x7", "layer1 layer2 layer3 layer4", 512),
    "resnext50_32x4d": ("64x112x112 256x56x56 512x28x28 1024x14x14 2048x7x7", "layer1 layer2 layer3 layer4", 2048),
    "wide_resnet50_2": ("64x112x112 256x56x56 512x28x28 1024x14x14 2048x7x7", "layer1 layer2 layer3 layer4", 2048),
    "mobilenet_v2": ("32x112x112 24x56x56 32x28x28 96x14x14 320x7x7", "features.3 features.6 features.13 features.17", 1280),
    "mobilenet_v3_large": ("16x112x112 24x56x56 40x28x28 112x14x14 160x7x7", "features.3 features.6 features.12 features.15", 1280),
    "efficientnet_b0": ("32x112x112 24x56x56 40x28x28 112x14x14 320x7x7", "features.2 features.3 features.5 features.7", 1280),
    "vgg16_bn": ("64x224x224 128x112x112 256x56x56 512x28x28 512x14x14", "features.12 features.22 features.32 features.42", 4096),
    "densenet121": ("64x112x112 256x56x56 512x28x28 1024x14x14 1024x7x7", "denseblock1 denseblock2 denseblock3 denseblock4", 1024),
    "convnext_tiny": ("96x56x56 96x56x56 192x28x28 384x14x14 768x7x7", "features.1 features.3 features.5 features.7", 768),
    "swin_t": ("96x56x56 96x56x56 192x28x28 384x14x14 768x7x7", "features.1 features.3 features.5 features.7", 768),
    "shufflenet_v2_x1_0": ("24x112x112 116x28x28 232x14x14 464x7x7", "stage2 stage3 stage4", 1024),
    "regnet_y_400mf": ("32x112x112 48x56x56 104x28x28 208x14x14 440x7x7", "block1 block2 block3 block4", 440),
    "vit_b_16": ("768x14x14" + 4 * " 768x14x14", "encoder_layer_2 encoder_layer_5 encoder_layer_8 encoder_layer_11", 768),
}
ATTENTION = {"vit_b_16", "swin_t"}
"""Networks whose products of attention torchvision counts in its own way."""

LINEAR_ENDS = {"mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16"}
WITHOUT_PREACTIVATIONS = {"densenet121", "shufflenet_v2_x1_0"}
WITHOUT_NORMS = {*WITHOUT_PREACTIVATIONS, "convnext_tiny", "swin_t", "vit_b_16"}

SMALL = ("torchvision/resnet18", "torchvision/mobilenet_v2")
small = pytest.mark.parametrize("name", SMALL)


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(KdbenchError) as error:
        build_model(name, **options)
    return str(error.value)


@pytest.fixture
def register() -> Iterator[Callable[[str, Callable[..., nn.Module]], None]]:
    """Adds models that last as long as the test."""
    restore = MODELS.snapshot()
    yield lambda name, factory: MODELS.register(name)(factory) and None  # type: ignore[arg-type, func-returns-value]
    restore()


# What is found in the families


@pytest.mark.parametrize("name", AT_224)
def test_the_hook_points_of_a_family(name):
    told = describe_model(f"torchvision/{name}", image_shape=(3, 224, 224), num_classes=1000)
    stem, *points, pooled, logits = told["points"]
    groups = [point for point in points if point["point"].startswith("group")]
    expected, modules, width = AT_224[name]
    assert " ".join("x".join(map(str, point["shape"])) for point in (stem, *groups)) == expected
    assert all(group["module"].endswith(module) for group, module in zip(groups, modules.split(), strict=True))
    assert (pooled["shape"], logits["shape"]) == ((width,), (1000,))
    befores = {group["preactivation"] for group in groups}
    assert (befores == {"the same maps"}) == (name in LINEAR_ENDS)
    assert (befores == {False}) == (name in WITHOUT_PREACTIVATIONS)
    assert ({group["norm"] for group in groups} == {False}) == (name in WITHOUT_NORMS)


@pytest.mark.parametrize("name", AT_224)
def test_size_and_work_are_what_torchvision_publishes(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        network = build_model(f"torchvision/{name}", num_classes=1000)
    assert parameters(network) == published["num_params"]
    assert macs(network, (3, 224, 224)) / 1e9 == pytest.approx(published["_ops"], rel=0.01 if name not in ATTENTION else 0.02)


def test_a_residual_networks_norms_are_the_last_of_its_groups():
    network = build_model("torchvision/resnet18")
    body = network.body
    assert network.group_norms() == tuple(layer[-1].bn2 for layer in (body.layer1, body.layer2, body.layer3, body.layer4))
    mobile = build_model("torchvision/mobilenet_v2")  # where a block may add to what a batch norm gave before it
    assert mobile.group_norms() == tuple(mobile.body.features[i].conv[-1] for i in (3, 6, 13, 17))


# No number is changed


@small
@pytest.mark.parametrize("training", [False, True])
def test_logits_and_gradients_are_the_librarys_own(name, training):
    network = build_model(name, num_classes=5).train(training)
    own = torchvision.models.get_model(name.split("/")[1], num_classes=5).train(training)
    own.load_state_dict(network.body.state_dict())
    torch.manual_seed(0)  # of dropout
    logits = network(images()).logits
    torch.manual_seed(0)
    expected = own(images())
    assert torch.equal(logits, expected)
    for value in (logits, expected):
        value.square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(network.parameters(), own.parameters(), strict=True))


@small
def test_points_mean_what_they_mean_in_our_own(name):
    network = build_model(name, num_classes=5).train()
    outputs = network(images())
    assert torch.equal(outputs.logits, network.classifier(outputs.pooled))
    assert (outputs.stem >= 0).all()
    for feature, before in zip(outputs.features, outputs.preactivations, strict=True):
        assert torch.equal(feature, F.relu(before) if name == SMALL[0] else before)
        assert (before < 0).any()  # hence no activation overwrote it in place
    for i, norm in enumerate(network.group_norms()):
        with torch.no_grad():
            norm.bias.add_(1.0)
        raised = network(images()).preactivations
        assert torch.allclose(raised[i], outputs.preactivations[i] + 1, atol=1e-4)
        with torch.no_grad():
            norm.bias.sub_(1.0)


def test_average_pooling_is_torchs_own_to_any_size():
    maps = torch.randn(2, 3, 5, 9, dtype=torch.float64)
    for size in ((7, 7), (2, 3), (5, 9), (1, 4), (None, 2)):
        assert torch.allclose(AveragePooling(size)(maps), F.adaptive_avg_pool2d(maps, size), atol=1e-12)
    with torch.device("meta"):
        network = build_model("torchvision/vgg11")
    assert isinstance(network.body.avgpool, AveragePooling)  # torch's has no deterministic backward pass on CUDA


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/regnet_y_400mf"])
def test_looking_for_hook_points_draws_nothing(name):
    """Or the first network of its name would start otherwise than the next; the second computes in its constructor."""
    models._wiring.cache_clear()
    before = torch.get_rng_state()
    models._wiring(name, 3, (), None)
    assert torch.equal(torch.get_rng_state(), before)


# Hooks leave nothing behind


def hooks_of(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_a_forward_pass_leaves_no_hook_and_no_tensor_behind():
    network = build_model("torchvision/resnet18")
    with torch.no_grad():
        network(images())
    assert hooks_of(network) == 0
    with pytest.raises(RuntimeError):
        network(torch.randn(2, 5, 8, 8))
    assert hooks_of(network) == 0
    gc.collect()
    own = {id(value) for value in (*network.parameters(), *network.buffers())}
    held = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    assert {id(value) for value in held} <= own


def test_a_deep_copy_reads_its_own_modules():
    network = build_model("torchvision/resnet18").eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.body.layer1[0].conv1.weight.zero_()
        a, b = network(images()), twin(images())
    assert not torch.equal(a.features[0], b.features[0])
    assert twin.classifier is twin.body.fc
    assert torch.equal(network(images()).logits, a.logits)


def test_its_state_has_one_name_for_each_tensor():
    network = build_model("torchvision/resnet18")
    assert list(network.state_dict()) == [f"body.{name}" for name in network.body.state_dict()]


# Transformers


def transformer(*, num_classes: int, in_channels: int) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=12, mlp_dim=16, num_classes=num_classes
    )


def test_tokens_become_maps_row_by_row_without_the_class_token(register):
    register("transformer_for_test", transformer)
    network = build_model("transformer_for_test", hooks=["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_3"]).eval()
    seen: list[Tensor] = []
    network.body.encoder.layers.encoder_layer_1.register_forward_hook(lambda module, args, output: seen.append(output))
    outputs = network(images(32))
    assert [tuple(maps.shape) for maps in outputs.features] == [(2, 12, 4, 4)] * 2
    for row in range(4):
        for column in range(4):
            assert torch.equal(outputs.features[0][:, :, row, column], seen[0][:, 1 + 4 * row + column])
    assert tuple(outputs.stem.shape) == (2, 12, 4, 4)
    assert outputs.preactivations[1] is outputs.features[1]  # the residual stream: no activation ends a block


def test_channels_last_outputs_become_maps():
    network = build_model("torchvision/swin_t", num_classes=3).eval()
    seen: list[Tensor] = []
    network.body.features[1].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        outputs = network(images(64))
    assert torch.equal(outputs.features[0], seen[0].permute(0, 3, 1, 2))


# Modules of one's own


class Plain(nn.Module):
    """A classifier that knows nothing of kdbench, for 32x32 images alone."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(6, 8, 4, 4)
        self.third = nn.Conv2d(8, 10, 2, 2)
        self.never = nn.Conv2d(1, 1, 1)
        self.fc = nn.Linear(10 * 4 * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(self.first(x)), inplace=True)  # overwrites what `second` gives
        return self.fc(F.relu(self.third(x)).flatten(1))  # type: ignore[no-any-return]


class Flat(nn.Module):
    """A classifier that takes images of 48x48 alone."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 6, 3, stride=4, padding=1), nn.ReLU())
        self.fc = nn.Linear(6 * 12 * 12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(x).flatten(1))
        return logits


def test_a_module_for_images_of_one_size_is_hooked_on_images_of_that_size(register):
    register("flat_for_test", Flat)
    network = build_model("flat_for_test", num_classes=4, in_channels=1, hooks=["body"], image_size=48)
    assert network(torch.randn(2, 1, 48, 48)).features[0].shape == (2, 6, 12, 12)
    assert shapes("flat_for_test", image_shape=(1, 48, 48), num_classes=4, hooks=("body",)).features == ((6, 12, 12),)
    split = Split(torch.zeros(8, 48, 48, 1, dtype=torch.uint8), torch.arange(8) % 4)
    builder = Builder(Dataset(split, split, tuple("abcd"), (0.5,), (0.5,)), SourceParams(), torch.device("cpu"))
    assert builder.network("flat_for_test", ("body",))(torch.randn(2, 1, 48, 48)).logits.shape == (2, 4)
    assert builder.blank_parts("flat_for_test", ("body",)).classifier_weight.shape == (4, 6 * 12 * 12)


def test_a_plain_module_needs_nothing_but_hooks(register):
    register("plain_for_test", Plain)
    network = build_model("plain_for_test", num_classes=4, in_channels=1, hooks=["first", "third"])
    assert isinstance(network, Network)
    outputs = network(torch.randn(2, 1, 32, 32))
    assert [tuple(maps.shape[1:]) for maps in (outputs.stem, *outputs.features)] == [(6, 32, 32), (6, 32, 32), (10, 4, 4)]
    assert torch.equal(F.relu(outputs.preactivations[0]), outputs.features[0])
    assert torch.equal(network.classifier(outputs.pooled), outputs.logits)
    assert network.group_norms() == ()  # the last group has none


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (
            [],
            "model 'plain_for_test' gives a Plain, without hook points. Name the modules with which its groups end, from shallow ",
        ),
        (
            ["first.3"],
            "plain_for_test, hooks: there is no module 'first.3'. The nearest: first.2, first.1, first.0, first; `kdbench ",
        ),
        (["never"], "plain_for_test, hooks: there is no module 'never'. It has first.0, "),
        (
            ["zzz"],
            "plain_for_test, hooks: there is no module 'zzz'. It has first.0, first.1, first.2, first, third; `kdbench show model ",
        ),
        (["first", ""], "plain_for_test, hooks: there is no module ''. It has first.0, first.1, first.2, first, third; `kdbench "),
        (
            ["fc"],
            "plain_for_test, hooks: 'fc' gives Bx10, neither maps nor a square of tokens; `kdbench show model plain_for_test ",
        ),
        (
            ["second"],
            "plain_for_test, hooks: what 'second' gives is overwritten by the operation after it; `kdbench show model plain_",
        ),
        (["third", "first"], "plain_for_test, hooks: third, first do not follow each other. Name each once, from shallow to deep."),
        (["first", "first"], "plain_for_test, hooks: first, first do not follow each other. Name each once, from shallow to deep."),
    ],
)
def test_a_hook_that_cannot_be_is_answered_with_those_that_can(hooks, message, register):
    register("plain_for_test", Plain)
    assert refusal("plain_for_test", hooks=hooks).startswith(message)


def test_where_no_name_is_near_the_usual_hooks_are_given_or_the_first_dozen():
    """And the command that lists all."""
    assert refusal("torchvision/resnet18", hooks=["zzz"]) == (
        "torchvision/resnet18, hooks: there is no module 'zzz'. Without `hooks` it has layer1, layer2, layer3, layer4; "
        "`kdbench show model torchvision/resnet18 --modules` lists those that can be hooks."
    )
    told = refusal("torchvision/mnasnet0_5", hooks=["zzz"])
    given = told.removeprefix("torchvision/mnasnet0_5, hooks: there is no module 'zzz'. It has ")
    names, _, end = given.partition("; ")
    *first, rest = names.split(", ")
    assert end == "`kdbench show model torchvision/mnasnet0_5 --modules` lists those that can be hooks."
    listed = [entry["module"] for entry in modules_of("torchvision/mnasnet0_5", image_shape=(3, 224, 224), num_classes=10)]
    assert first == listed[:12] and rest == f"and {len(listed) - 12} more"


def test_a_name_that_is_near_and_cannot_be_a_hook_is_not_offered(register):
    register("plain_for_test", Plain)
    assert "second" not in refusal("plain_for_test", hooks=["secnd"])  # which the operation after it overwrites


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet8", {"hooks": ["groups.0"]}, "resnet8, hooks: there is no block 'groups.0'. Did you mean 'groups."),
        (
            "vgg8",
            {"hooks": ["groups.1.0", "groups.0.0"]},
            "vgg8, hooks: groups.1.0, groups.0.0 do not follow each other. Name each",
        ),
        (
            "torchvision/resnt18",
            {},
            "unknown model 'torchvision/resnt18'. Did you mean 'torchvision/resnet18'? `torchvision.models.list",
        ),
        ("torchvision/mnasnet0_5", {}, "model 'torchvision/mnasnet0_5' gives a MNASNet, without hook points. Name the modules"),
        (
            "torchvision/resnet18",
            {"in_channels": 1},
            "torchvision/resnet18 takes images of 3 channels, and these have 1. Give images of",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_the_way_out(name, options, message):
    with torch.device("meta"):
        assert refusal(name, **options).startswith(message)


def test_images_that_a_network_cannot_take_are_refused():
    with pytest.raises(KdbenchError) as error:
        shapes("torchvision/vit_b_16", image_shape=(3, 32, 32), num_classes=10)
    assert str(error.value) == (
        "torchvision/vit_b_16 cannot take images of 3x32x32 (Wrong image height! Expected 224 but got 32!). "
        "Give another size, or choose another network."
    )


# timm


def test_a_missing_timm_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal("timm/resnet18") == "timm/ networks need timm. Install it: pip install 'kdbench[timm]'."


TIMM = {
    # images, stem and groups, modules of the groups
    "resnet18": ((1, 224, 224), "64x112x112 64x56x56 128x28x28 256x14x14 512x7x7", "layer1 layer2 layer3 layer4"),
    "mobilenetv3_small_100": (
        (3, 224, 224),
        "16x112x112 16x56x56 24x28x28 48x14x14 576x7x7",
        "blocks.0 blocks.1 blocks.3 blocks.5",
    ),
    "vit_tiny_patch16_224": ((3, 224, 224), "192x14x14" + 4 * " 192x14x14", "blocks.2 blocks.5 blocks.8 blocks.11"),
    "deit_tiny_patch16_224": ((3, 224, 224), "192x14x14" + 4 * " 192x14x14", "blocks.2 blocks.5 blocks.8 blocks.11"),
    "vgg11_bn": (
        (3, 224, 224),
        "64x224x224 128x112x112 256x56x56 512x28x28 512x14x14",
        "features.6 features.13 features.20 features.27",
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_says_where_its_groups_end(name):
    pytest.importorskip("timm")
    shape, expected, modules = TIMM[name]
    told = describe_model(f"timm/{name}", image_shape=shape, num_classes=7)
    stem, *points, logits = told["points"]
    groups = [point for point in points if point["point"].startswith("group")]
    assert " ".join("x".join(map(str, point["shape"])) for point in (stem, *groups)) == expected
    assert [group["module"] for group in groups] == modules.split()
    assert logits["shape"] == (7,)


@pytest.mark.parametrize(("name", "width"), [("swin_pico", 48), ("swin_nano", 64)])
def test_the_small_swin_transformers(name, width):
    pytest.importorskip("timm")
    groups = tuple(f"layers.{i}" for i in range(4))
    found = shapes(name, image_shape=(3, 224, 224), num_classes=7, hooks=groups)
    assert found.features == tuple((width * 2**i, 56 // 2**i, 56 // 2**i) for i in range(4))
    assert found.pooled == (8 * width,)


def test_a_network_of_timm_trains():
    pytest.importorskip("timm")
    network = build_model("timm/resnet18", num_classes=4, in_channels=1).train()
    outputs = network(torch.randn(4, 1, 32, 32))
    outputs.logits.square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    assert torch.equal(F.relu(outputs.preactivations[-1]), outputs.features[-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnt18", "unknown model 'timm/resnt18'. Did you mean 'timm/resnet18'? `timm.list_models()` gives all."),
        (
            "timm/resnet18.a1_in1k",
            "'timm/resnet18.a1_in1k' names weights. Write them apart: {model: timm/resnet18, weights: a1_in1k}.",
        ),
    ],
)
def test_a_mistake_in_a_name_of_timms(name, message):
    pytest.importorskip("timm")
    assert refusal(name) == message


# On the command line


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`kdbench` with arguments, in this process: status, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", *arguments])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *capsys.readouterr())

    return run


def test_a_model_is_shown_with_its_points_size_and_work(call):
    status, out, _ = call("show", "model", "torchvision/resnet18", "--input", "3x64x64", "--classes", "5")
    assert (status, out) == (
        0,
        "torchvision/resnet18, images of 3x64x64, 5 classes\n"
        "  point        shape     module       pre-activation  batch norm before it\n"
        "  stem         64x32x32  relu\n"
        "  group 1      64x16x16  layer1       layer1.1.relu   layer1.1.bn2\n"
        "  group 2      128x8x8   layer2       layer2.1.relu   layer2.1.bn2\n"
        "  group 3      256x4x4   layer3       layer3.1.relu   layer3.1.bn2\n"
        "  group 4      512x2x2   layer4       layer4.1.relu   layer4.1.bn2\n"
        "  pooled_maps  512x2x2   layer4\n"
        "  pooled       512       input of fc\n"
        "  logits       5         fc\n"
        "11,179,077 parameters, 148.05 M multiply-accumulates\n",
    )


def test_our_own_models_are_shown_too(call):
    status, out, _ = call("show", "model", "wrn_16_1")
    assert status == 0
    assert out.startswith(
        "wrn_16_1, images of 3x32x32, 10 classes\n  point        shape     pre-activation  batch norm before it\n"
    )
    assert "  group 3      64x8x8    yes             yes\n" in out
    assert "  pooled_maps  64x8x8\n" in out


def test_hooks_can_be_tried(call):
    told = json.loads(call("show", "model", "torchvision/mnasnet0_5", "--hook", "layers.8", "--hook", "layers.13", "--json")[1])
    assert [point["module"] for point in told["points"][1:3]] == ["layers.8", "layers.13"]
    assert told["points"][2]["shape"] == [160, 7, 7]


def test_the_modules_that_can_be_hooks_are_listed(call):
    status, out, _ = call("show", "model", "torchvision/mnasnet0_5", "--modules", "--input", "3x64x64")
    title, *lines = [line.split() for line in out.splitlines()]
    assert (status, " ".join(title), lines[0]) == (0, "torchvision/mnasnet0_5, images of 3x64x64", ["module", "shape"])
    assert ["layers.13", "160x2x2"] in lines
    assert not any(name.startswith("classifier") for name, _ in lines)
    listed = json.loads(call("show", "model", "resnet14", "--modules", "--json")[1])
    assert [entry["module"] for entry in listed] == [f"groups.{i}.{j}" for i in range(3) for j in range(2)]
    assert listed[-1]["shape"] == [64, 8, 8]
    assert "hook" not in call("show", "model", "wrn_16_1", "--modules")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["torchvision/resnet18", "--input", "224"],
            "--input: '224' is not the shape of an image. Give channels, height and width, such as 3x",
        ),
        (["torchvision/resnet18", "--input", "3x0x9"], "--input: '3x0x9' is not the shape of an image."),
        (["torchvision/resnet18", "--input", "1x28x28"], "torchvision/resnet18 takes images of 3 channels, and these have 1."),
        (
            ["torchvision/resnet18", "--hook", "layer5"],
            "torchvision/resnet18, hooks: there is no module 'layer5'. The nearest: layer4, ",
        ),
        (["torchvision/resnet18", "--modules", "--hook", "layer1"], "--hook has no effect on --modules. Leave one of them out."),
        (
            ["torchvision/resnet18", "--modules", "--input", "3x32x64"],
            "--modules tells maps by their square shape, and images of 3x32x64 are not square. ",
        ),
        (["resnet8", "--hook", "stem"], "resnet8, hooks: there is no block 'stem'. `kdbench show model"),
        (["resnet9"], "unknown model 'resnet9'. Did you mean "),
    ],
)
def test_a_mistake_in_showing_a_model_is_one_line(arguments, message, call):
    status, out, err = call("show", "model", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_options_of_models_have_no_effect_on_a_method(call):
    status, _, err = call("show", "method", "kd", "--classes", "5")
    assert (status, err) == (2, "error: --input, --classes, --hook and --modules have no effect on a method. Leave them out.\n")


def test_the_libraries_are_listed(call, monkeypatch):
    monkeypatch.setattr(MODELS, "names", lambda: ["resnet20"])  # measuring all takes seconds
    names = [line.split()[0] for line in call("list", "models")[1].splitlines()]
    assert {"timm/NAME", "torchvision/NAME", "resnet20"} <= set(names)


def test_hooked_networks_are_networks_by_type():
    assert isinstance(build_model("torchvision/resnet18"), Hooked)
