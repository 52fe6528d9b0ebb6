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
from kdbench.report.comparable import check_comparable
from kdbench.runner.frame import load_results
from kdbench.spec.recipe import SGD, Recipe
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import teacher_stages
from kdbench.training import arithmetic
from kdbench.training.arithmetic import memory_format, used_arithmetic
from kdbench.training.device import exact

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
from kdbench.training.device import exact
torch.backends.fp32_precision = "ieee"
for precision in ("default", "tf32"):
    with exact(torch.device("cpu"), precision=precision, image_shape=(3, 8, 8)):
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
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


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_is_in_channels_last(precision: str, device: torch.device) -> None:
    assert memory_format(device, precision=precision) == torch.channels_last


def layout(tensor: Tensor) -> torch.memory_format:
    """What kernels take a tensor (B, C, H, W) for, by its strides."""
    places = tensor.shape[2] * tensor.shape[3]
    return torch.channels_last if places > 1 and tensor.stride(1) == 1 else torch.contiguous_format


MODULES = ("training.arithmetic", "training.builder", "training.frozen_teacher", "runner.teachers")


@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("mixup", [0, 1])
def test_networks_and_all_batches_have_the_layout(
    wanted: torch.memory_format, mixup: float, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey images, whose layout their strides alone tell; strong and turned views; mixed images; tests; the folded teacher."""
    for module in MODULES:
        monkeypatch.setattr(f"kdbench.{module}.memory_format", lambda device, *, precision: wanted)
    convolve, seen = nn.Conv2d.forward, []

    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32:
            of_weights = (layout(self.weight),) if self.kernel_size != (1, 1) else ()
            # Turned grey images may lie either way in channels-last: there the weights say which kernel it is.
            of_images = (layout(x),) if x.shape[1] > 1 or wanted is torch.contiguous_format else ()
            seen.append((tuple(x.shape), *of_images, *of_weights))
        return convolve(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    methods = ["kd"] if mixup else ["mlkd", {"sskd": {"ssp_epochs": 1}}]
    recipe = {"epochs": 1, "schedule": {"milestones": []}, "mixup": mixup}
    assert lab.run(lab.suite(methods=methods, recipe=recipe))
    assert load_results(lab.store.root)["status"].eq("done").all(), load_results(lab.store.root)["reason"].tolist()
    others = {found for found in seen if any(one != wanted for one in found[1:])}
    assert seen and not others
