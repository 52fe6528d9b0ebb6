"""The networks: those of the literature to the last parameter, with hook points that mean the same in all of them."""

import copy
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.method.outputs import Outputs, Shapes
from kdbench.models import MODELS, Network, build_model, register_model
from kdbench.models.measure import macs, parameters, shapes
from kdbench.models.mobilenet import InvertedResidual
from kdbench.models.resnet import BasicBlock, Bottleneck
from kdbench.models.shufflenet import GroupedBlock, SplitBlock, shuffle
from kdbench.models.wrn import WideResNet

EXPECTED = {
    # parameters with 10 and with 100 classes; MMACs of a 32x32 image, 100 classes; stem, groups and pooled
    "resnet8": (78_042, 83_892, 12.51, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet14": (175_258, 181_108, 26.66, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet20": (272_474, 278_324, 40.82, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet32": (466_906, 472_756, 69.13, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet44": (661_338, 667_188, 97.44, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet56": (855_770, 861_620, 125.75, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet110": (1_730_714, 1_736_564, 253.16, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "resnet8x4": (1_210_410, 1_233_540, 177.07, "32x32x32 64x32x32 128x16x16 256x8x8 256"),
    "resnet32x4": (7_410_730, 7_433_860, 1083.04, "32x32x32 64x32x32 128x16x16 256x8x8 256"),
    "resnet50_cifar": (23_520_842, 23_705_252, 1298.01, "64x32x32 256x32x32 512x16x16 1024x8x8 2048x4x4 2048"),
    "wrn_16_1": (175_066, 180_916, 26.66, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "wrn_16_2": (691_674, 703_284, 101.12, "16x32x32 32x32x32 64x16x16 128x8x8 128"),
    "wrn_28_10": (36_479_194, 36_536_884, 5243.39, "16x32x32 160x32x32 320x16x16 640x8x8 640"),
    "wrn_40_1": (563_930, 569_780, 83.29, "16x32x32 16x32x32 32x16x16 64x8x8 64"),
    "wrn_40_2": (2_243_546, 2_255_156, 327.61, "16x32x32 32x32x32 64x16x16 128x8x8 128"),
    "wrn_40_4": (8_949_210, 8_972_340, 1298.61, "16x32x32 64x32x32 128x16x16 256x8x8 256"),
    "wrn_46_4": (10_499_290, 10_522_420, 1525.10, "16x32x32 64x32x32 128x16x16 256x8x8 256"),
    "vgg8": (3_918_858, 3_965_028, 96.19, "64x32x32 128x16x16 256x8x8 512x4x4 512x4x4 512"),
    "vgg11": (9_231_114, 9_277_284, 209.44, "64x32x32 128x16x16 256x8x8 512x4x4 512x4x4 512"),
    "vgg13": (9_416_010, 9_462_180, 284.94, "64x32x32 128x16x16 256x8x8 512x4x4 512x4x4 512"),
    "vgg16": (14_728_266, 14_774_436, 398.18, "64x32x32 128x16x16 256x8x8 512x4x4 512x4x4 512"),
    "vgg19": (20_040_522, 20_086_692, 511.43, "64x32x32 128x16x16 256x8x8 512x4x4 512x4x4 512"),
    "mobilenetv2_half": (697_546, 812_836, 6.52, "16x16x16 12x16x16 16x8x8 48x4x4 160x2x2 1280"),
    "shufflenetv1": (862_768, 949_258, 38.69, "24x32x32 240x16x16 480x8x8 960x4x4 960"),
    "shufflenetv2": (1_263_278, 1_355_528, 44.50, "24x32x32 116x16x16 232x8x8 464x4x4 1024"),
}

LINEAR_GROUPS = {"mobilenetv2_half"}
"""Networks in which no activation follows a group."""

WITHOUT_NORMS = {"shufflenetv2"}
"""Networks in which no single batch norm covers a group's pre-activation."""

every_model = pytest.mark.parametrize("name", MODELS.names())
every_light_model = pytest.mark.parametrize(
    "name", [name for name in MODELS.names() if name not in EXPECTED or EXPECTED[name][2] < 102 or name == "resnet50_cifar"]
)  # the others differ from these in depth and width alone


@cache
def on_meta(name: str, *, num_classes: int = 10) -> Network:
    """The model without storage, to be read and not changed: its arithmetic is checked, nothing is computed."""
    with torch.device("meta"):
        return build_model(name, num_classes=num_classes)


@cache
def shapes_at_32(name: str) -> Shapes:
    return shapes(name, image_shape=(3, 32, 32), num_classes=100)


def maps(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs.stem, *outputs.features, *outputs.preactivations)


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@every_model
@pytest.mark.parametrize("column, num_classes", [(0, 10), (1, 100)])
def test_parameters_are_the_fields(name: str, column: int, num_classes: int) -> None:
    assert parameters(on_meta(name, num_classes=num_classes)) == EXPECTED[name][column]


@every_model
def test_macs_are_the_fields(name: str) -> None:
    assert round(macs(on_meta(name, num_classes=100), (3, 32, 32)) / 1e6, 2) == EXPECTED[name][2]


@every_model
def test_hook_points_have_the_fields_shapes(name: str) -> None:
    found = shapes_at_32(name)
    assert " ".join("x".join(map(str, shape)) for shape in (found.stem, *found.features, found.pooled)) == EXPECTED[name][3]
    assert found.preactivations == found.features
    assert found.logits == (100,)


@every_light_model
@pytest.mark.parametrize("image_shape", [(1, 28, 28), (5, 8, 8)])
def test_any_size_and_number_of_channels_will_do(name: str, image_shape: tuple[int, int, int]) -> None:
    found = shapes(name, image_shape=image_shape, num_classes=7)
    assert found.logits == (7,)
    assert len(found.features) == len(EXPECTED[name][3].split()) - 2


@every_light_model
def test_each_batch_norm_runs_once_per_forward(name: str) -> None:
    model = build_model(name).train()
    model(torch.randn(2, 3, 16, 16))
    counts = [norm.num_batches_tracked for norm in norms(model)]
    assert all(count is not None and count.item() == 1 for count in counts)


@every_light_model
def test_features_are_the_activated_preactivations(name: str) -> None:
    outputs = build_model(name)(torch.randn(2, 3, 16, 16))
    assert (outputs.stem >= 0).all()
    for feature, preactivation in zip(outputs.features, outputs.preactivations, strict=True):
        assert torch.equal(feature, preactivation if name in LINEAR_GROUPS else F.relu(preactivation))
        assert (preactivation < 0).any()  # hence no activation overwrote it in place


@every_light_model
def test_preactivations_depend_on_their_group_norm(name: str) -> None:
    model, images = build_model(name).train(), torch.randn(2, 3, 16, 16)
    before = model(images).preactivations
    for i, norm in enumerate(model.group_norms()):
        with torch.no_grad():
            norm.bias.add_(1.0)
        after = model(images).preactivations
        assert torch.allclose(after[i], before[i] + 1.0, atol=1e-4)
        assert all(torch.equal(after[j], before[j]) for j in range(i))
        with torch.no_grad():
            norm.bias.sub_(1.0)


@every_model
def test_group_norms_cover_the_channels_of_their_groups(name: str) -> None:
    model = on_meta(name)
    channels = [shape[0] for shape in shapes_at_32(name).preactivations]
    assert [norm.num_features for norm in model.group_norms()] == ([] if name in WITHOUT_NORMS else channels)
    assert {id(norm) for norm in model.group_norms()} <= {id(norm) for norm in norms(model)}


FEWER_ENDS = {
    "resnet14": ("groups.0.0", "groups.2.0"),
    "wrn_16_1": ("groups.0.0", "groups.1.1", "groups.2.0"),
    "vgg11": ("groups.1.0", "groups.1.1"),
    "mobilenetv2_half": ("groups.0.1", "groups.2.3"),
    "shufflenetv1": ("groups.1.1", "groups.2.1"),
    "shufflenetv2": ("groups.0.0", "groups.1.1"),
}


@pytest.mark.parametrize("name", FEWER_ENDS)
def test_any_block_may_end_a_group(name: str) -> None:
    usual = build_model(name)
    chosen = build_model(name, hooks=FEWER_ENDS[name])
    chosen.load_state_dict(usual.state_dict())
    images = torch.randn(2, 3, 16, 16)
    made: list[Tensor] = []
    for block in FEWER_ENDS[name]:
        usual.get_submodule(block).register_forward_hook(lambda _, args, output: made.append(output))
    expected, outputs = usual(images), chosen(images)
    assert torch.equal(outputs.logits, expected.logits)
    for raw, before, feature, output in zip(outputs.raw, outputs.preactivations, outputs.features, made, strict=True):
        trunk, activated = output if isinstance(output, tuple) else (output, output)
        assert torch.equal(raw, trunk)
        assert torch.equal(before, activated)
        assert torch.equal(feature, before if name in LINEAR_GROUPS else F.relu(before))
    channels = [] if name in WITHOUT_NORMS else [maps.shape[1] for maps in outputs.preactivations]
    assert [norm.num_features for norm in chosen.group_norms()] == channels
    for i, norm in enumerate(chosen.group_norms()):
        with torch.no_grad():
            norm.bias.add_(1.0)
        assert not torch.equal(chosen(images).preactivations[i], outputs.preactivations[i])


@pytest.mark.parametrize("name", ["resnet8", "wrn_10_1", "mobilenetv2_half", "torchvision/resnet18"])
def test_raw_hooks_read_groups_before_what_follows_them(name: str) -> None:
    usual, raw = build_model(name), build_model(name, hooks=("raw",))
    raw.load_state_dict(usual.state_dict())
    images = torch.randn(2, 3, 32, 32)
    expected, outputs = usual(images), raw(images)
    assert len(expected.raw) == len(expected.features)
    assert all(torch.equal(a, b) for a, b in zip(outputs.features, expected.raw, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(outputs.preactivations, expected.preactivations, strict=True))
    assert torch.equal(outputs.logits, expected.logits)
    if name == "wrn_10_1":
        assert torch.equal(outputs.stem, usual.stem(images))  # type: ignore[operator]  # a module
        for group, maps in enumerate(expected.raw):
            assert torch.equal(usual.groups[group][0].norm(maps), expected.preactivations[group])  # type: ignore[index, operator]
    else:
        assert torch.equal(outputs.stem, expected.stem)
        assert all(torch.equal(a, b) for a, b in zip(expected.raw, expected.preactivations, strict=True))


def test_a_network_that_has_no_raw_maps_cannot_be_read_raw() -> None:
    with pytest.raises(KdbenchError, match=r"densenet121: it does not tell its maps before .* Take `hooks: raw` out\.$"):
        shapes("torchvision/densenet121", image_shape=(3, 32, 32), num_classes=10, hooks=("raw",))


@pytest.mark.parametrize(
    "block",
    [
        BasicBlock(24, 24, 1),
        Bottleneck(24, 6, 1),
        InvertedResidual(24, 24, stride=1, expansion=6),
        GroupedBlock(24, 24, groups=3, entry_groups=3, stride=1),
    ],
    ids=lambda block: type(block).__name__,
)
def test_a_residual_block_adds_its_input_unchanged(block: nn.Module) -> None:
    nn.init.zeros_(block.last.norm.weight)  # type: ignore[union-attr, arg-type]
    x = torch.randn(2, 24, 4, 4)
    assert torch.equal(block(x), x)


def test_the_units_of_shufflenets_pass_channels_on() -> None:
    x = torch.randn(2, 24, 4, 4)
    down = GroupedBlock(24, 60, groups=3, entry_groups=1, stride=2)
    assert torch.equal(down(x)[:, -24:], F.avg_pool2d(x, 3, stride=2, padding=1))
    assert torch.equal(SplitBlock(24)(x)[:, ::2], x[:, :12])


def test_a_wide_block_adds_the_trunk_before_its_norm_or_projects_the_activation() -> None:
    model = WideResNet(depth=10, widening=1, num_classes=10, in_channels=3).eval()
    for group in model.groups:
        nn.init.zeros_(group[0].second.weight)  # type: ignore[index]  # a list of modules
    for norm in norms(model):
        nn.init.normal_(norm.bias)
    images = torch.randn(2, 3, 16, 16)
    outputs = model(images)
    first, second, _ = model.group_norms()
    assert torch.equal(outputs.preactivations[0], first(model.stem(images)))
    projection = model.groups[1][0].shortcut  # type: ignore[index]
    assert torch.equal(outputs.preactivations[1], second(projection(outputs.features[0])))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_shuffle_is_a_channel_shuffle(groups: int) -> None:
    x = torch.randn(2, 12, 5, 4)
    assert torch.equal(shuffle(x, groups), F.channel_shuffle(x, groups))


@every_light_model
def test_the_classifier_reads_what_is_pooled(name: str) -> None:
    model = build_model(name)
    outputs = model(torch.randn(2, 3, 16, 16))
    assert torch.equal(outputs.logits, model.classifier(outputs.pooled))
    if outputs.pooled.shape[1] == outputs.features[-1].shape[1]:
        assert torch.equal(outputs.pooled_maps, outputs.features[-1])


@every_light_model
@pytest.mark.parametrize("hooks", [(), ("raw",)], ids=["usual", "raw"])
def test_the_places_of_the_pooled_maps_are_classified_to_the_logits(name: str, hooks: tuple[str, ...]) -> None:
    outputs = build_model(name, hooks=hooks).double().eval()(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert torch.equal(outputs.pooled, outputs.pooled_maps.mean((2, 3)))
    torch.testing.assert_close(outputs.classify(outputs.pooled_maps).mean((2, 3)), outputs.logits)


@every_light_model
def test_every_parameter_learns(name: str) -> None:
    model = build_model(name)
    model(torch.randn(4, 3, 16, 16)).logits.square().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@every_light_model
def test_hook_points_keep_channels_last(name: str) -> None:
    model = build_model(name).to(memory_format=torch.channels_last)
    outputs = model(torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps(outputs))


@every_light_model
def test_the_memory_format_changes_no_more_than_rounding(name: str) -> None:
    model, images = build_model(name).double().train(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    plain, last = model(images), other(images.contiguous(memory_format=torch.channels_last))
    for a, b in zip((plain.logits, *maps(plain)), (last.logits, *maps(last)), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


@every_light_model
def test_convolutions_start_with_the_variance_of_the_field(name: str) -> None:
    torch.manual_seed(0)
    for conv in (module for module in build_model(name).modules() if isinstance(module, nn.Conv2d)):
        kaiming = 2 / (conv.out_channels * conv.kernel_size[0] ** 2)
        torch_default = 1 / (3 * conv.weight[0].numel())  # uniform within 1 / sqrt(fan_in)
        expected = torch_default if name.startswith("shufflenet") else kaiming
        n = conv.weight.numel()
        assert conv.weight.var().item() == pytest.approx(expected, rel=6 * (2 / n) ** 0.5 + 0.02)


@pytest.mark.parametrize(
    "name, weight_std, zero_bias", [("vgg8", 0.01, True), ("mobilenetv2_half", 0.01, True), ("wrn_16_2", None, True)]
)
def test_classifiers_start_as_the_fields(name: str, weight_std: float | None, zero_bias: bool) -> None:
    classifier = build_model(name, num_classes=100).classifier
    default = (3 * classifier.in_features) ** -0.5
    assert classifier.weight.std().item() == pytest.approx(weight_std or default, rel=0.05)
    assert (not classifier.bias.any()) == zero_bias


@pytest.mark.parametrize("name", ["resnet8", "wrn_10_1"])
def test_teacher_parts_are_detached_copies(name: str) -> None:
    model = build_model(name)
    parts = model.teacher_parts()
    tensors = [parts.classifier_weight, parts.classifier_bias, *(t for pair in parts.norms for t in pair)]
    assert torch.equal(parts.classifier_weight, model.classifier.weight)
    assert all(torch.equal(w, norm.weight) for (w, _), norm in zip(parts.norms, model.group_norms(), strict=True))
    kept = [t.clone() for t in tensors]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert not any(t.requires_grad for t in tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))


@every_model
def test_a_deep_copy_names_its_own_norms(name: str) -> None:
    model = on_meta(name)
    twin = copy.deepcopy(model)
    own = {id(module) for module in twin.modules()}
    assert all(id(norm) in own for norm in twin.group_norms())
    assert len(twin.group_norms()) == len(model.group_norms())


def test_measuring_leaves_the_model_alone() -> None:
    model = build_model("resnet8").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    macs(model, (3, 32, 32))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_macs_of_a_convolution_and_a_linear_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 5 * 5, 7))
    assert macs(model, (3, 5, 5)) == 5 * 5 * 3 * 3 * 3 * 4 + 4 * 5 * 5 * 7


class Asking(nn.Module):
    """Pools its maps by attention with a learnt question, as timm's vision transformers of SigLIP do."""

    def __init__(self) -> None:
        super().__init__()
        self.question = nn.Parameter(torch.zeros(1, 1, 3))
        self.ask, self.read = nn.Linear(3, 3), nn.Linear(3, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        places = images.flatten(2).mT
        asked = self.ask(self.question.expand(len(places), -1, -1))
        return self.read((asked @ places.mT).softmax(2) @ places).flatten(1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_of_a_layer_that_is_given_a_parameter(device: str) -> None:
    model = Asking().to(device)
    assert macs(model, (3, 5, 5)) == 3 * 3 + 2 * 3 * 5 * 5 + 3 * 7
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_any_valid_wide_residual_network_can_be_named() -> None:
    assert "wrn_22_3" in MODELS
    assert "wrn_22_3" not in MODELS.names()
    found = shapes("wrn_22_3", image_shape=(3, 32, 32), num_classes=10)
    assert found.features == ((48, 32, 32), (96, 16, 16), (192, 8, 8))


@pytest.mark.parametrize("name", ["wrn_17_2", "wrn_4_1"])
def test_a_depth_that_does_not_exist_is_refused_with_those_that_do(name: str) -> None:
    depth = name.split("_")[1]
    with pytest.raises(KdbenchError) as error:
        build_model(name)
    assert str(error.value) == (
        f"unknown model '{name}': no wide residual network has depth {depth}. Choose a depth of 6 n + 4: 10, 16, 22, 28, ..."
    )


@pytest.mark.parametrize("name", ["wrn_16_0", "wrn_016_2", "wrn_16_02"])
def test_a_network_has_one_name_only(name: str) -> None:
    with pytest.raises(KdbenchError, match="unknown model"):
        build_model(name)


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("resnet65", "resnet56"),
        ("resnet21", "resnet20"),
        ("ResNet31", "resnet32"),
        ("resnet9x4", "resnet8x4"),
        ("resnet200", "resnet20"),
        ("resnet322", "resnet32"),
        ("vgg17", "vgg16"),
        ("resnt20", "resnet20"),
        ("torchvision/densenet120", "torchvision/densenet121"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(unknown: str, meant: str) -> None:
    """Of names that differ in their numbers alone it is that with the nearest one."""
    with pytest.raises(KdbenchError, match=rf"unknown model '{unknown}'\. Did you mean '{meant}'\?"):
        build_model(unknown)


@pytest.mark.parametrize(
    ("norm", "told"),
    [(lambda: nn.BatchNorm2d(7), "batch norm of 7 channels is given 64"), (lambda: nn.BatchNorm1d(64), "expected 2D or 3D input")],
)
def test_a_batch_norm_that_does_not_fit_is_seen_without_computing(norm: Callable[[], nn.Module], told: str) -> None:
    restore = MODELS.snapshot()

    @register_model("misfit_for_test")
    def misfit(*, num_classes: int, in_channels: int) -> nn.Module:
        model = build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
        *_, last = (name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
        model.set_submodule(last, norm())
        return model

    try:
        with pytest.raises(KdbenchError, match=f"misfit_for_test cannot take images of 3x32x32 .*{told}"):
            shapes("misfit_for_test", image_shape=(3, 32, 32), num_classes=10)
    finally:
        restore()


def test_a_model_without_hook_points_is_refused() -> None:
    restore = MODELS.snapshot()

    @register_model("convolution_for_test")
    def convolution(*, num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

    try:
        with pytest.raises(
            KdbenchError, match=r"'convolution_for_test' gives a Sequential, without hook points\. Name the modules .* Or derive"
        ):
            build_model("convolution_for_test")
    finally:
        restore()


def test_a_user_without_a_name_needs_none(monkeypatch):
    """In a container the user is often a number alone, and torch 2.11 then cannot train."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is as before in the end
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    models._name_compile_cache()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).name == f"torchinductor_uid_{os.getuid()}"
