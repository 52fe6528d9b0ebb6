"""Every method on inputs with too little or too much in them: it refuses them when it is built, or its gradients are finite."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from test_method_traps import CLASSES, SIZES, batch, outputs, pair
from torch import Tensor

from kdbench import Composition, Outputs, PairError
from kdbench.conformance.gradients import gradients_at
from kdbench.conformance.hook_points import map_tensors
from kdbench.docs.methods import shipped_methods
from kdbench.method.interface import METHODS, Method

LARGEST = 1e6
"""What is larger is no gradient of usual features."""

SMALLER: dict[str, dict[str, object]] = {"crd": {"negatives": 16}, "dml": {"peer": "wrn_10_1"}, "ffl": {"peer": "wrn_10_1"}}
"""What makes a method cheap without changing what it does."""


@dataclass(frozen=True)
class Case:
    """Outputs of both networks; `labels` are of all training images, of which the first are the batch.

    Of features that are scaled up, a loss of their fourth powers may have `steep` gradients, or not even be `finite`.
    """

    student: Outputs
    teacher: Outputs
    labels: Tensor = torch.arange(40) % CLASSES
    steep: bool = False
    finite: bool = True


S, T = outputs(8), outputs(8, seed=1)


def features(point: Outputs, function: Callable[[Tensor], Tensor]) -> Outputs:
    """With `function` of all but the logits."""
    return replace(map_tensors(point, function), logits=point.logits)


def classes(count: int) -> Case:
    return Case(*(of_classes(count, point) for point in (S, T)), labels=torch.arange(40) % count)


def of_classes(count: int, point: Outputs) -> Outputs:
    views = {name: of_classes(count, view) for name, view in point.views.items()}
    return replace(point, logits=point.logits[:, :count], views=views)


def sized(student: tuple[tuple[int, int, int], ...], teacher: tuple[tuple[int, int, int], ...]) -> Case:
    return Case(outputs(8, sizes=student), outputs(8, sizes=teacher, seed=1))


def scaled(point: Outputs, scale: float) -> Outputs:
    return features(point, lambda value: scale * value)


def widened(point: Outputs, width: int) -> Outputs:
    """With pooled vectors of another width, in the views, too."""
    views = {name: widened(view, width) for name, view in point.views.items()}
    count = len(point.logits)
    return replace(point, pooled=torch.rand(count, width), pooled_maps=torch.zeros(count, 0, 0, 0), views=views)


def first_twice(value: Tensor) -> Tensor:
    return torch.cat((value[:1], value[:1], value[2:]))


zero, alike = torch.zeros_like, partial(lambda value: value[:1].expand_as(value).clone())
PIXELS = tuple((channels, 1, 1) for channels, *_ in SIZES)
WIDE = tuple((3 * channels, *size) for channels, *size in SIZES)
HALF = tuple((channels, height // 2, width // 2) for channels, height, width in SIZES)
ODD = tuple((channels, height - 1, width - 1) for channels, height, width in SIZES)
TALL = tuple((channels, height, max(1, height - 2)) for channels, height, _ in SIZES)
FOUR = (SIZES[0], *SIZES)

CASES = {
    "as usual": Case(S, T),
    "the student is the teacher": Case(T, T),
    "the student gives 0": Case(map_tensors(S, zero), T),
    "the teacher gives 0": Case(S, map_tensors(T, zero)),
    "both give 0": Case(map_tensors(S, zero), map_tensors(T, zero)),
    "the student's images are alike": Case(map_tensors(S, alike), T),
    "the teacher's images are alike": Case(S, map_tensors(T, alike)),
    "all images are alike": Case(map_tensors(S, alike), map_tensors(T, alike)),
    "two images are alike": Case(map_tensors(S, first_twice), map_tensors(T, first_twice)),
    "batches of one image": Case(outputs(1), outputs(1, seed=1)),
    "batches of two images": Case(outputs(2), outputs(2, seed=1)),
    "one class": classes(1),
    "two classes": classes(2),
    "training images of one class": Case(S, T, labels=torch.zeros(40, dtype=torch.int64)),
    "a class with one training image": Case(S, T, labels=torch.cat((torch.arange(39) % 4, torch.tensor([4])))),
    "a class without training images": Case(S, T, labels=torch.arange(40) % 4),
    "maps of one pixel": sized(PIXELS, PIXELS),
    "a student with maps of one pixel": sized(PIXELS, SIZES),
    "a last map of one pixel": sized((*SIZES[:2], PIXELS[2]), (*SIZES[:2], PIXELS[2])),
    "one pixel in batches of one": Case(outputs(1, sizes=PIXELS), outputs(1, sizes=PIXELS, seed=1)),
    "a wider student": sized(WIDE, SIZES),
    "a wider teacher": sized(SIZES, WIDE),
    "a student with half the height and width": sized(HALF, SIZES),
    "a teacher with half the height and width": sized(SIZES, HALF),
    "a student with a little less height and width": sized(ODD, SIZES),
    "a teacher with a little less height and width": sized(SIZES, ODD),
    "maps that are not square": sized(TALL, TALL),
    "one group and four": sized(SIZES[2:], FOUR),
    "four groups and one": sized(FOUR, SIZES[2:]),
    "a student without pre-activations": Case(replace(S, preactivations=()), T),
    "a teacher without pre-activations": Case(S, replace(T, preactivations=())),
    "pooled vectors of other widths than the last group": Case(widened(S, 17), widened(T, 23)),
    **{
        f"{name} logits times 1e4": Case(replace(S, logits=s * S.logits), replace(T, logits=t * T.logits))
        for name, s, t in (("the student's", 1e4, 1), ("the teacher's", 1, 1e4), ("all", 1e4, 1e4))
    },
    **{f"all features times {scale:g}": Case(scaled(S, scale), scaled(T, scale)) for scale in (1e-12, 1e-20)},
    **{
        f"{name} features times {scale:g}": Case(scaled(S, s), scaled(T, t), steep=True, finite=scale < 1e20)
        for scale in (1e4, 1e20)
        for name, s, t in (("the student's", scale, 1), ("the teacher's", 1, scale))
    },
}

STEEP = {
    "ft_repdistiller": {"the student gives 0", "both give 0", "all features times 1e-12", "all features times 1e-20"},
    "nst": {"all features times 1e-12"},
    "normkd": {"the teacher's logits times 1e4"},
}
"""Where a gradient above all limits is the authors' formula: the first two norm what they compare, so that it grows as features
shrink, and NormKD weighs an image by the variance of the teacher's logits.
"""


@pytest.mark.parametrize("name", shipped_methods())
def test_degenerate_inputs_are_refused_or_give_finite_gradients(name: str) -> None:
    wrong = {label: problems for label, case in CASES.items() if (problems := list(problems_of(name, label, case)))}
    assert not wrong


@pytest.mark.parametrize("p", (1.0, 1.5, 4.0))
def test_attention_of_any_power_has_finite_gradients_where_features_are_0(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SMALLER, "at", {"p": p})
    assert not [problem for label in CASES if "give" in label for problem in problems_of("at", label, CASES[label])]


def test_attention_of_a_power_below_1_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        METHODS.get("at").Params(p=0.5)


def problems_of(name: str, label: str, case: Case) -> Iterator[str]:
    """What is wrong with a method's losses and gradients in a case, in float32 and under autocast; nothing where it refuses it."""
    try:
        method = Composition({name: built(name, case)})
    except PairError:
        return
    steep = case.steep or label in STEEP.get(name, ())
    given = batch(len(case.student.logits), labels=case.labels[: len(case.student.logits)])
    for precision in (torch.float32, torch.bfloat16):
        student = map_tensors(case.student, lambda value: value.clone().requires_grad_())
        inputs = [*student.tensors(), *method.parameters()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
            segments = {
                stage.name: dict(stage.losses(student if stage.trains_student else case.teacher, case.teacher, given))
                for _, stage in method.stages()
            }
            segments["main"] = dict(method.losses(student, case.teacher, given))
            segments["main"]["prediction"] = method.predict(student).float().mean()
        for segment, losses in segments.items():
            total = torch.stack([*losses.values()]).sum()
            gradients = [gradient for gradient in gradients_at(total, inputs) if gradient is not None]
            found = torch.cat([value.detach().flatten() for value in (total, *gradients)])
            if case.finite and not found.isfinite().all():
                yield f"{segment} is not finite ({precision})"
            elif not steep and found[1:].abs().max() > LARGEST:
                yield f"{segment} has a gradient of {found[1:].abs().max():.2g} ({precision})"


def built(name: str, case: Case) -> Method:
    size, count, width = len(case.student.logits), case.student.logits.shape[1], case.teacher.pooled.shape[1]
    known = pair(case.student, case.teacher)
    parts = replace(known.teacher_parts, classifier_weight=torch.randn(count, width), classifier_bias=torch.randn(count))
    cls = METHODS.get(name)
    torch.manual_seed(0)
    return cls(
        cls.Params(**SMALLER.get(name, {})),
        replace(known, labels=case.labels, teacher_parts=parts, smallest_batch=size, largest_batch=size),
    )
