"""What a recipe's `precision` comes to: torch's settings, what the record says of it, ids and draws, and the layout of networks."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import MIXED, Lab
from torch import Tensor, nn

from kdbench import KdbenchError
from kdbench.models.shufflenet import shuffle
from kdbench.report.comparable import check_comparable
from kdbench.runner.frame import load_results
from kdbench.spec.recipe import SGD, Recipe
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import teacher_stages
from kdbench.training import arithmetic
from kdbench.training.arithmetic import memory_format, used_arithmetic
from kdbench.training.device import exact
from kdbench.training.frozen_teacher import FrozenTeacher

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PRECISIONS = ("default", "fp32", "tf32", "bf16")


def rounding() -> dict[str, str]:
    """What torch computes float32 with, for the whole and for each operation."""
    places: dict[str, Any] = {
        "all": torch.backends,
        "convolutions": torch.backends.cudnn.conv,
        "products": torch.backends.cuda.matmul,
        "products on the CPU": torch.backends.mkldnn.matmul,
    }
    return {name: place.fp32_precision for name, place in places.items()}


STRICT = {"all": "none", "convolutions": "none", "products": "ieee", "products on the CPU": "none"}
SETTINGS = {
    "default": {**STRICT, "convolutions": "tf32"},
    "fp32": STRICT,
    "tf32": {**STRICT, "convolutions": "tf32", "products": "tf32"},
    "bf16": STRICT,
}
SWITCHES = {"default": (True, False), "fp32": (False, False), "tf32": (True, True), "bf16": (False, False)}
"""Whether TF32 is allowed in convolutions and in products: the older names of the settings, which `torch.compile` reads."""


@pytest.mark.parametrize("wish", ["usual", "high", "medium", "whole", "products"])
def test_what_the_process_has_set_for_float32_changes_no_trial_and_stays(wish: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 64, 64).unbind()
    with exact(CPU, precision="fp32", image_shape=(3, 8, 8)):
        product = a @ b
    usual = rounding()
    try:
        if wish == "whole":
            torch.backends.fp32_precision = "tf32"
        elif wish == "products":
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        elif wish != "usual":
            torch.set_float32_matmul_precision(wish)
        wished = rounding()
        assert (wished == usual) is (wish == "usual")
        for precision, expected in SETTINGS.items():
            with exact(CPU, precision=precision, image_shape=(3, 8, 8)):
                assert rounding() == expected
                assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == SWITCHES[precision]
                assert torch.equal(a @ b, product)
            assert rounding() == wished
    finally:
        torch.backends.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
        torch.backends.cudnn.allow_tf32 = True
        assert rounding() == usual


def test_a_process_that_asks_for_strict_float32_has_it_afterwards_too() -> None:
    """In a process of its own, since torch forgets that nothing was set for convolutions once something was."""
    program = """
import torch
from kdbench.training.arithmetic import float32_as
torch.backends.fp32_precision = "ieee"  # which torch 2.11 does not take for convolutions
places = (torch.backends, torch.backends.cudnn.conv, torch.backends.cuda.matmul)
before = [place.fp32_precision for place in places]
assert "ieee" in before
for precision in ("default", "tf32"):
    with float32_as(precision):
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert [place.fp32_precision for place in places] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def outcome(lab: Lab, trial: TrialSpec) -> tuple[dict[str, Any], list[str]]:
    """What must be the same of two trials that differ in how they were asked for."""
    record, *rows = lab.outcomes()[trial.id]
    return {k: v for k, v in json.loads(record).items() if k not in ("trial", "spec", "recipe")}, rows


def test_on_a_cpu_the_default_trains_to_the_bits_of_fp32(lab: Lab, undisturbed: Lab) -> None:
    default, strict = undisturbed.suite(**MIXED), lab.suite(**{**MIXED, "recipe": {**MIXED["recipe"], "precision": "fp32"}})
    assert lab.run(strict)
    for one, other in zip((*default.teachers, *default.trials), (*strict.teachers, *strict.trials), strict=True):
        assert (one.recipe.precision, other.recipe.precision) == ("default", "fp32") and one.id != other.id
        assert outcome(undisturbed, one) == outcome(lab, other)


def test_the_default_draws_as_fp32_does_and_the_others_by_their_ids(lab: Lab) -> None:
    pair = {"teacher": {"model": "wrn_10_1", "method": "kd", "teacher": "wrn_10_1"}, "student": "resnet8"}
    found = {
        precision: lab.suite(methods=["ft"], pairs=[pair], recipe={"precision": precision}).trials[0] for precision in PRECISIONS
    }
    teachers = {precision: trial.teacher for precision, trial in found.items()}
    assert len({teacher.id for teacher in teachers.values()}) == len(PRECISIONS)
    assert teachers["default"].stream_seed == teachers["fp32"].id
    assert all(teacher.stream_seed == teacher.id for precision, teacher in teachers.items() if precision != "default")
    stages = {precision: teacher_stages(trial)[0] for precision, trial in found.items()}
    assert stages["default"].stream_seed == stages["fp32"].stream_seed and stages["default"].id != stages["fp32"].id


@pytest.mark.parametrize(
    ("precision", "with_tf32", "without"),
    [
        ("default", "tf32 in convolutions", "fp32"),
        ("fp32", "fp32", "fp32"),
        ("tf32", "tf32", "fp32"),
        ("bf16", "bf16", "bf16"),
    ],
)
def test_the_record_says_what_was_used(precision: str, with_tf32: str, without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, with_tf32), (False, without)):
        monkeypatch.setattr(arithmetic, "has_tf32", lambda device, there=there: there)
        for compiled in (False, True):
            recipe = Recipe(epochs=1, batch_size=2, optimiser=SGD(lr=1.0), precision=precision, compile=compiled)
            assert used_arithmetic(recipe, CUDA) == expected + ", compiled" * compiled


def test_a_cpu_has_no_tf32() -> None:
    assert not arithmetic.has_tf32(CPU)


def test_one_suite_on_two_kinds_of_devices_is_told_apart(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = lab.suite(methods=["scratch"])
    assert lab.run(suite)
    monkeypatch.setattr(arithmetic, "has_tf32", lambda device: True)
    both = lab.suite(methods=["scratch"], seeds=[0, 1])
    assert lab.run(both)
    results = load_results(lab.store.root, suite=both.file)
    assert results["precision"].tolist() == ["fp32", "tf32 in convolutions"] and results["recipe"].nunique() == 1
    with pytest.raises(KdbenchError, match=r"cannot mix precisions: fp32 \(.*\); tf32 in convolutions \(.*`--rerun all`"):
        check_comparable(results)


# The layout of networks and batches


@pytest.mark.parametrize("there", [True, False], ids=["Ampere and later", "before"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_nchw_is_for_strict_fp32_on_cuda(precision: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "has_tf32", lambda device: there)
    strict = precision == "fp32" or (not there and precision in ("default", "tf32"))
    assert memory_format(CUDA, precision=precision) == (torch.contiguous_format if strict else torch.channels_last)
    assert memory_format(CPU, precision=precision) == torch.channels_last


def layout(tensor: Tensor) -> torch.memory_format:
    """What kernels take a tensor (B, C, H, W) for, by its strides."""
    places = tensor.shape[2] * tensor.shape[3]
    return torch.channels_last if places > 1 and tensor.stride(1) == 1 else torch.contiguous_format


MODULES = ("training.arithmetic", "training.builder", "training.frozen_teacher", "runner.teachers")


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], torch.memory_format, torch.memory_format]]:
    """With NCHW for fp32 and channels-last for all else, on the CPU, too: the shape and layout of what convolutions take, and of
    their weights."""
    for module in MODULES:
        monkeypatch.setattr(
            f"kdbench.{module}.memory_format",
            lambda device, *, precision: torch.contiguous_format if precision == "fp32" else torch.channels_last,
        )
    convolve, seen = nn.Conv2d.forward, []

    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32:
            weights = layout(self.weight)
            # In channels-last, turned grey images may lie either way, and weights of one pixel do: the other of the two decides.
            images = layout(x) if x.shape[1] > 1 or weights is torch.contiguous_format else weights
            seen.append((tuple(x.shape), images, images if self.kernel_size == (1, 1) else weights))
        return convolve(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    return seen


LAYOUTS = {"fp32": torch.contiguous_format, "default": torch.channels_last}


@pytest.mark.parametrize(("precision", "mixup"), [("fp32", 0), ("fp32", 1), ("default", 0)])
def test_networks_and_all_batches_have_the_layout(precision: str, mixup: float, lab: Lab, request: pytest.FixtureRequest) -> None:
    """Strong and turned views, mixed images, tests; the folded teacher, whose own training had the other one. Images are grey."""
    other = "default" if precision == "fp32" else "fp32"
    alone = {"methods": ["kd"]}
    seeing = {"methods": ["mlkd", {"sskd": {"ssp_epochs": 1}}], "stages": "per-teacher"}
    settings = {
        **(alone if mixup else seeing),
        "recipe": {"epochs": 1, "schedule": {"milestones": []}, "precision": precision, "mixup": mixup},
        "teacher": {"recipe": {"precision": other, "mixup": 0}},
    }
    assert lab.run(lab.suite(**settings))  # the teacher, and what is learnt from it alone
    seen = request.getfixturevalue("convolved")
    assert lab.run(lab.suite(**settings, seeds=[1]))
    assert set(load_results(lab.store.root)["status"]) == {"done"}, load_results(lab.store.root)["reason"].tolist()
    assert seen and [found for found in seen if found[1:] != (LAYOUTS[precision],) * 2] == []


def test_a_teacher_has_the_layout_of_each_recipe(lab: Lab, convolved: list[tuple[Any, ...]]) -> None:
    builder = lab.builder(lab.suite())
    strict, default = (Recipe(epochs=1, batch_size=2, optimiser=SGD(lr=1.0), precision=name) for name in LAYOUTS)
    network = builder.network("wrn_10_1", precision="fp32")
    teacher = FrozenTeacher(network, image_shape=builder.dataset.image_shape, recipe=strict, device=CPU)
    under, images, logits = teacher.under(default), builder.test_data.first(4), []
    for asked, wanted in ((teacher, "fp32"), (under, "default"), (teacher, "fp32"), (under.under(strict), "fp32")):
        convolved.clear()
        logits.append(asked(images).logits)
        assert convolved and [found for found in convolved if found[1:] != (LAYOUTS[wanted],) * 2] == []
        assert torch.equal(asked.logits(images), logits[-1]) and asked.unchanged
    torch.testing.assert_close(logits[1:], logits[:1] * 3)


def test_channels_are_shuffled_alike_in_both_layouts() -> None:
    maps = torch.arange(2 * 6 * 4 * 5.0).view(2, 6, 4, 5)
    last = maps.contiguous(memory_format=torch.channels_last)
    shuffled = shuffle(maps, 3)
    assert torch.equal(shuffled, shuffle(last, 3)) and torch.equal(shuffled, maps[:, [0, 2, 4, 1, 3, 5]])
    assert (layout(shuffle(maps, 3)), layout(shuffle(last, 3))) == (torch.contiguous_format, torch.channels_last)
