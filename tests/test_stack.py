"""`stack: true`: students of one architecture compute as one network, and each learns as if it were alone in it."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, Lab
from invariants.probes import give_teacher
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, Outputs, Pair, Stage
from kdbench.conformance.setting import Setting
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.models import Network, build_model
from kdbench.models.stacked import Cut, Stacked
from kdbench.models.stacked_layers import PLACES, Convolution, join
from kdbench.spec.trial import NetworkInput
from kdbench.streams import seeded
from kdbench.training.arithmetic import autocast
from kdbench.training.block import Block
from kdbench.training.compiled import Compiled
from kdbench.training.device import exact
from kdbench.training.lane import Lane
from kdbench.training.stackable import DIFFERENT, LEAKS, passed, why_not_stacked
from kdbench.training.step_graph import StepGraph


def network(name: str, seed: int) -> Network:
    with seeded(seed, "student"):
        return build_model(name, num_classes=10).to(memory_format=torch.channels_last).train()


def learn(networks: list[Network], place: int, losses: dict[int, float], *, device: str, precision: str) -> list[Tensor]:
    """What the network at a place gives and learns in a step in which those at `losses` learn, and what it remembers."""
    with seeded(0, "images"):
        images = torch.randn(4, 3, 16, 16).to(device, memory_format=torch.channels_last)
    with autocast(images.device, precision=precision):
        cuts = Stacked([network.to(device) for network in networks])(images)

    def loss(cut: Cut, weight: float) -> Tensor:
        return weight * (cut.outputs.logits.square().mean() + cut.outputs.features[1].mean())

    for i, weight in losses.items():
        torch.autograd.backward(loss(cuts[i], weight))
    used = [pair for cut in cuts for pair in zip(cut.parts, cut.leaves, strict=True) if pair[1].grad is not None]
    torch.autograd.backward([part for part, _ in used], [leaf.grad for _, leaf in used])
    gradients = [parameter.grad for parameter in networks[place].parameters() if parameter.grad is not None]
    return [*cuts[place].outputs.tensors(), *gradients, *networks[place].buffers()]


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
ON_CPU = [("resnet8", 3, "cpu", "fp32"), ("wrn_10_1", 7, "cpu", "fp32"), ("resnet8", 6, "cpu", "bf16")]
ON_CUDA = [
    pytest.param(name, place, "cuda", precision, marks=CUDA)
    for name, place in (("resnet8", 3), ("wrn_10_1", 7), ("wrn_10_2", 1))
    for precision in ("fp32", "default", "tf32", "bf16")
]


@pytest.mark.parametrize(("name", "place", "device", "precision"), [*ON_CPU, *ON_CUDA])
def test_a_network_is_bitwise_the_same_alone_and_at_any_place_beside_others(
    name: str, place: int, device: str, precision: str
) -> None:
    """Also beside networks full of NaN, whose losses are infinite."""

    def beside(*, broken: bool) -> list[Tensor]:
        others = [network(name, seed=seed) for seed in range(1, PLACES)]
        for parameter in (parameter for other in others if broken for parameter in other.parameters()):
            nn.init.constant_(parameter, math.nan)
        row = [*others[:place], network(name, seed=0), *others[place:]]
        weights = {i: 1.0 if i == place else math.inf if broken else -2.0 for i in range(PLACES)}
        return learn(row, place, weights, device=device, precision=precision)

    with exact(torch.device(device), precision=precision, image_shape=(3, 16, 16)):
        alone = learn([network(name, seed=0)], 0, {0: 1.0}, device=device, precision=precision)
        for found in (beside(broken=False), beside(broken=True)):
            assert len(alone) == len(found) > 50
            assert all(map(torch.equal, alone, found))


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2_half"])
def test_the_hook_points_that_others_read_change_no_bit(name: str) -> None:
    """Of the gradients of a network that is judged by its logits alone; the last maps of MobileNet are 1x1, which is any layout."""
    with seeded(0, "images"):
        images = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)

    def gradients(*, read: int | None) -> list[Tensor]:
        own, other = network(name, seed=0), network(name, seed=1)
        cuts = Stacked([own, other])(images)
        (judged,) = (i for i, leaf in enumerate(cuts[0].leaves) if leaf is cuts[0].outputs.logits)
        parts = [cuts[0].parts[judged], *([] if read is None else [cuts[1].parts[read]])]
        torch.autograd.backward(parts, [torch.linspace(-1, 1, part.numel()).view(part.shape) for part in parts])
        return [parameter.grad for parameter in own.parameters() if parameter.grad is not None]

    with exact(torch.device("cpu"), precision="fp32", image_shape=(3, 8, 8)):
        alone = gradients(read=None)
        points = len(Stacked([network(name, seed=0)])(images)[0].leaves)
        assert points > 5 and len(alone) > 20
        different = [point for point in range(points) if not all(map(torch.equal, alone, gradients(read=point)))]
    assert not different


@pytest.mark.parametrize("name", ["resnet8", "wrn_10_1", "vgg8"])
def test_the_numbers_of_all_places_are_joined_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA a list of tensors is copied by few kernels, where each has the strides of what it is copied from."""
    copied: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    original = torch._foreach_copy_

    def noted(to: list[Tensor], given: list[Tensor]) -> None:
        copied.extend((one.stride(), other.stride()) for one, other in zip(to, given, strict=True))
        original(to, given)

    stacked = Stacked([network(name, seed=0), network(name, seed=1)])
    numbers = sum(tensor.is_floating_point() for tensor in network(name, seed=0).state_dict().values())
    monkeypatch.setattr(torch, "_foreach_copy_", noted)
    monkeypatch.setattr(Stacked, "_update_statistics", lambda self: None)  # which copies back
    stacked(torch.zeros(2, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    assert len(copied) == PLACES * numbers and all(one == other for one, other in copied)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1, "stride": (2, 1)},
    {"kernel_size": 1, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 2},
    {"kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2},
    {"kernel_size": 5, "padding": 2, "stride": 3},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_strided_convolutions_in_halves_are_the_same(options: dict[str, Any]) -> None:
    """As they are computed on CUDA: output and gradients, in float64."""
    options = {"in_channels": 4, "out_channels": 8, "bias": False, **options}
    with seeded(0, "layers"):
        places = [nn.Conv2d(**options).double().to(memory_format=torch.channels_last) for _ in range(PLACES)]
        maps = torch.randn(3, PLACES * 4, 9, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    layer = Convolution(places)
    assert layer._doubles
    found = []
    for way in (layer, layer._in_halves):
        given = maps.clone(memory_format=torch.preserve_format).requires_grad_()
        join([layer])
        made = way(given)
        learnt = [given, *(place.weight for place in places)]
        found.append([made, *torch.autograd.grad(made, learnt, torch.linspace(-1, 1, made.numel()).double().view(made.shape))])
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_which_networks_can_be_stacked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """ShuffleNet mixes channels. On some CPUs, kernels for groups of few channels in bf16 let NaN through, as the last ones do."""

    def reason(name: str, precision: str = "fp32", **changes: Any) -> str | None:
        suite = lab.suite(recipe={"precision": precision})
        return why_not_stacked(lab.builder(suite), suite.trials[0].model_copy(update={"student": name, **changes}))

    assert reason("resnet8") is None
    assert reason("wrn_10_1", "bf16") is None
    assert reason("shufflenetv1") == DIFFERENT
    assert (reason("resnet8", input=NetworkInput(size=16)) or "").startswith("it has numbers of its own")
    original = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *rest, **options: original(x, *rest, **options) + 0 * x.sum())
    assert reason("resnet8") == LEAKS.format(precision="fp32")


def test_where_the_recipe_compiles_it_is_tried_compiled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(Compiled):
        def prepare(self, images: Tensor) -> float:
            return 0.0

        def __call__(self, images: Tensor) -> Outputs:
            outputs = super().__call__(images)
            return replace(outputs, logits=outputs.logits + 0 * outputs.logits.sum())

    monkeypatch.setattr("kdbench.training.stackable.Compiled", Leaky)
    for compiling in (False, True):
        suite = lab.suite(recipe={"precision": "fp32", "compile": compiling})
        assert why_not_stacked(lab.builder(suite), suite.trials[0]) == (LEAKS.format(precision="fp32") if compiling else None)


def test_a_device_without_a_kernel_for_it_is_a_reason(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of cuDNN and torch. Full memory is no such thing, nor is a mistake of ours."""

    def raises(problem: RuntimeError) -> str | None:
        monkeypatch.setattr("kdbench.training.stackable._step", lambda *given: (_ for _ in ()).throw(problem))
        return why_not_stacked(lab.builder(suite), suite.trials[0])

    suite = lab.suite(recipe={"stack": True, "precision": "fp32"})
    for text in (
        "GET was unable to find an engine to execute this computation",
        "[cudnn_frontend] Error: No valid execution plans built",
        "no deterministic convolution algorithms available in CuDNN",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED_SHAPE",
        "max_pool3d_backward_cuda does not have a deterministic implementation, but you set it",
        "\"conv\" not implemented for 'BFloat16'",
    ):
        assert raises(RuntimeError(text)) == f"here, a step of it cannot be computed in fp32 ({text})"
    for mistake in (torch.OutOfMemoryError("on purpose"), RuntimeError("The size of tensor a (4) must match that of b (2)")):
        with pytest.raises(type(mistake), match=re.escape(str(mistake))):
            raises(mistake)


@pytest.mark.parametrize("names", [("kd", "scratch"), ("crd", "at", "catkd")])
def test_nothing_of_a_blocks_backward_pass_outlives_its_step(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """It would tie the next step to the stream of this one, and a step that reaches out of its stream cannot be recorded."""
    settings = [Setting(name, "resnet8", "resnet14") for name in names]
    lanes = [setting.lane(epochs=1) for setting in settings]
    block, inputs, kept = Block(lanes), settings[0].inputs(12, ()), list[weakref.ref[Tensor]]()
    original = block._pass
    monkeypatch.setattr(block, "_pass", lambda batch: _noted(original(batch), kept))
    for lane in lanes:
        lane.begin_epoch()
    for _ in range(2):
        block.step(inputs, lambda: inputs)
        assert len(kept) > 10 and not any(tensor() is not None for tensor in kept)
    assert [lane.failure for lane in lanes] == [None] * len(lanes)


def _noted(cuts: list[Cut], kept: list[weakref.ref[Tensor]]) -> list[Cut]:
    kept.extend(weakref.ref(tensor) for cut in cuts for tensor in (*cut.leaves, *cut.parts))
    return cuts


def test_it_is_tried_with_as_many_images_as_a_student_sees_at_once(lab: Lab) -> None:
    """72 images are two batches of 32 and one of 8, and three times as many where each is turned."""
    suite = lab.suite(methods=["kd", "sskd"], recipe={"stack": True})
    builder, (kd, sskd) = lab.builder(suite), suite.trials
    assert (passed(builder, kd), passed(builder, sskd)) == ({8, 32}, {8, 24, 32, 96})


class Deep(Method):
    """A stage of the student that reaches its deepest group, where a hint reaches a part of it."""

    reads = ("features",)

    def build(self, pair: Pair) -> None:
        self.adapter = nn.Conv2d(pair.student.features[-1][0], pair.teacher.features[-1][0], 1)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("deep", 1, self.losses, (self.adapter,), trains_student=True),)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.adapter(student.features[-1]) - teacher.features[-1]).square().mean()}


class Headless(Method):
    """Has no cross-entropy, so that nothing reaches the student's classifier."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.ce_weight = 0.0
        self.adapter = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.adapter(student.pooled) - teacher.pooled).square().mean()}


class Diverges(Method):
    """Its loss becomes NaN, and with it all that its student has learnt."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": student.features[0].mean() * math.nan} if batch.epoch == 1 else {}


class Raises(Method):
    """Raises in the middle of the second epoch, and in its backward pass."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        found = student.logits.exp().mean()
        if batch.epoch == 1 and len(batch.labels) < 32:
            with torch.no_grad():
                student.logits.exp_()
                batch.images.mul_(0)
            raise ValueError("on purpose")
        return {"gap": found}


class Vandal(Method):
    """Changes in place what it is given: its student's outputs and the images of all."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if batch.epoch == 1:
            with torch.no_grad():
                batch.images.zero_()
                for tensor in student.tensors():
                    tensor.zero_()
        return {"gap": student.logits.square().mean()}


GOOD: list[Any] = [
    *("deep", "catkd", "headless", "sskd"),
    {"fitnets": {"hint_epochs": 1}},
    {"crd+kd": {"crd": {"negatives": 64}}},
]
"""Stages that reach different parts of a student, a live classifier, no cross-entropy, a further view, draws, buffers."""

CULPRITS = {
    "diverges": "the loss is nan in epoch 2 of stage main",
    "raises": "ValueError: on purpose",
    "vandal": "it changed in place a tensor that all lanes are given; clone it before",
}
STACK: dict[str, Any] = {
    "recipe": {
        **TINY["recipe"],
        "stack": True,
        "optimiser": {"lr": 0.05, "weight_decay": 0.01},
        "moving_average": 0.5,
        "gradient_clipping": 1.0,
    },
    "teacher": {"recipe": {"epochs": 1, "schedule": {"milestones": []}}},
}


@pytest.fixture(scope="module", autouse=True)
def odd() -> Iterator[None]:
    restore = METHODS.snapshot()
    for method in (Deep, Headless, Diverges, Raises, Vandal):
        METHODS.register(method.__name__.lower())(method)
    yield
    restore()


@pytest.fixture(scope="module")
def together(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab in which all of them ran side by side, culprits first."""
    lab = Lab(tmp_path_factory.mktemp("together"), images)
    lab.run(lab.suite(**STACK, methods=[*CULPRITS, *GOOD]))
    return lab


def test_a_lane_alone_is_bitwise_what_it_is_beside_others_of_which_some_fail(together: Lab, lab: Lab) -> None:
    suite = lab.suite(**STACK, methods=GOOD[:3])
    give_teacher(lab, together, suite)
    lab.run(suite, lanes=1)
    assert lab.outcomes() == together.outcomes(suite)
    assert {lab.record(trial).status for trial in suite.trials} == {"done"}


def test_a_lane_that_fails_is_told_why(together: Lab) -> None:
    for trial in together.suite(**STACK, methods=list(CULPRITS)).trials:
        record = together.record(trial)
        assert record.status == "failed"
        assert CULPRITS[trial.method] in (record.reason or "")


def test_a_stacked_lane_that_is_resumed_ends_as_one_that_was_not(together: Lab, lab: Lab, one_epoch_a_run: dict[str, Any]) -> None:
    suite = lab.suite(**STACK, methods=[GOOD[0], GOOD[2]])
    give_teacher(lab, together, suite)
    runs = 1
    while not lab.run(suite, **one_epoch_a_run):
        runs += 1
    assert runs == 3
    assert lab.outcomes() == together.outcomes(suite)


def test_it_trains_as_without_it_but_for_rounding(together: Lab, lab: Lab) -> None:
    suite = lab.suite(**{**STACK, "recipe": {**STACK["recipe"], "stack": False}}, methods=GOOD[1:])
    give_teacher(lab, together, suite)
    lab.run(suite)
    stacked = together.suite(**STACK, methods=GOOD[1:])
    assert stacked.teachers == suite.teachers
    for ours, theirs in zip(stacked.trials, suite.trials, strict=True):
        assert ours.id != theirs.id
        assert (together.record(ours).precision, lab.record(theirs).precision) == ("fp32, stacked", "fp32")
        assert together.record(ours).student_params == lab.record(theirs).student_params
        for row, expected in zip(together.curves(ours), lab.curves(theirs), strict=True):
            assert row.keys() == expected.keys()
            for key in {"train_loss", "gradient_ratio", "loss_ratio"} & row.keys():
                assert row[key] == pytest.approx(expected[key], rel=1e-3), (ours.method, key)


class Draws(Method):
    """Draws in its steps, so that they cannot be part of a graph."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"noise": student.logits.square().mean() * torch.rand((), generator=batch.generator)}


@pytest.mark.usefixtures("rehearsed")
def test_a_block_is_one_graph_of_all_lanes_that_can_be_part_of_one(
    together: Lab, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    original = Lane.end_epoch

    def end_epoch(lane: Lane) -> None:
        seen[lane.name] = lane.graph_refused or lane.graph
        original(lane)

    monkeypatch.setattr(Lane, "end_epoch", end_epoch)
    METHODS.register("draws")(Draws)
    good = together.suite(**STACK, methods=["catkd", "headless"])
    give_teacher(lab, together, good)
    lab.run(lab.suite(**STACK, methods=["catkd", "headless", "draws"]))
    assert lab.outcomes(good) == together.outcomes(good)
    assert seen.pop("draws") == "it draws random numbers in its steps"
    assert isinstance(seen["catkd"], StepGraph) and seen["catkd"] is seen["headless"]


def test_a_teacher_is_not_stacked(lab: Lab) -> None:
    with pytest.raises(KdbenchError, match=r"teacher.recipe.stack: it concerns students, and a teacher trains alone"):
        lab.suite(teacher={"recipe": {"stack": True}})


def test_a_network_that_cannot_be_stacked_is_refused_before_anything_starts(lab: Lab) -> None:
    suite = lab.suite(recipe={"stack": True}, pairs=[{"teacher": "wrn_10_1", "student": "shufflenetv1"}])
    with pytest.raises(KdbenchError, match=r"shufflenetv1 cannot be stacked: .*\. Write `stack: false` in the recipe"):
        lab.run(suite)
    assert not list(lab.store.root.glob("trials/*"))
