"""Checks of which pairs of networks a method does, and how it refuses the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from kdbench.conformance.method_under_test import MethodUnderTest, PairRefused
from kdbench.conformance.setting import BrokenPromise, Setting, build_for, expect
from kdbench.conformance.terms import loss_terms, synthetic_pair
from kdbench.method.batch import Batch, View
from kdbench.method.outputs import Shapes
from kdbench.method.pair import Pair, PairError, TeacherParts
from kdbench.streams import generator

REASON = 30
"""Characters; what is shorter explains nothing."""


def equal(tested: MethodUnderTest) -> None:
    """Two networks of one architecture train, or are refused.

    Why: It is the simplest pair.

    Fix: Build every size from `pair.student` and `pair.teacher`.
    """
    train_or_refuse(tested, Setting(tested.name, "resnet8", "resnet8"))


def deeper_teacher(tested: MethodUnderTest) -> None:
    """A student of three groups and a teacher of four train, or are refused.

    Why: Most teachers are deeper.

    Fix: Pair the groups with `kdbench.deepest_pairs`, or raise `PairError` in `build`.
    """
    train_or_refuse(tested, Setting(tested.name, "resnet8", "mobilenetv2_half"))


def deeper_student(tested: MethodUnderTest) -> None:
    """A student of four groups and a teacher of three train, or are refused.

    Why: Some suites have such pairs.

    Fix: Pair the groups with `kdbench.deepest_pairs`, or raise `PairError` in `build`.
    """
    train_or_refuse(tested, Setting(tested.name, "mobilenetv2_half", "resnet8"))


def odd_sizes(tested: MethodUnderTest) -> None:
    """Images of 9x7 pixels train, or are refused.

    Why: Images need be neither square nor a power of two.

    Fix: Bring maps of two sizes together with `kdbench.pool_to_smaller`, or raise `PairError` in `build`.
    """
    train_or_refuse(tested, replace(tested.default_setting, image_shape=(3, 9, 7)))


def train_or_refuse(tested: MethodUnderTest, setting: Setting) -> None:
    """Take a step in a setting.

    Raises:
        PairRefused: the method does not do this pair, and says so when it is built.
        BrokenPromise: it fails later.
    """
    try:
        if reason := tested.refusal(setting.pair):
            raise PairRefused(reason)
        setting.step(8)
    except (PairRefused, BrokenPromise):
        raise
    except Exception as problem:
        raise BrokenPromise(
            f"{tested.exception_text(problem)}. Refuse the pair in `build` with PairError, or make it work."
        ) from problem


def refusals(tested: MethodUnderTest) -> None:
    """A pair that it cannot do is refused with a reason when it is built, never by an exception in training.

    Why: A pair that is refused costs seconds, and one that fails in training costs hours.

    Fix: Raise `PairError` in `build` with a reason of at least a few words, or set `min_batch_size` or `min_classes`.
    """
    random = partial(torch.randn, generator=generator(0, "refusals"))
    _, _, usual = tested.default_setting.example_inputs()
    for case, pair, refuse_it in poor(tested.default_setting.pair):
        size, (classes,) = min(pair.largest_batch, len(usual.labels)), pair.student.logits
        batch = smaller(usual, size=size, classes=classes)
        student, teacher = synthetic_pair(tested.method_class, pair, random, random, batch)
        try:
            method = build_for(tested.name, pair)
            for _, survey in method.surveys():
                survey.see(teacher, batch.labels)
                survey.finish()
            found = loss_terms(method, student, teacher, batch)
        except PairError:
            reason = tested.refusal(pair)
            expect(reason is not None, f"{case} is refused in a loss, when training has begun. Raise PairError in `build`.")
            expect(len(reason or "") >= REASON, f"{case} is refused with '{reason}'. Say what is missing and what to choose.")
            continue
        except Exception as problem:
            raise BrokenPromise(f"{case}: {tested.exception_text(problem)}. Refuse it {refuse_it}, or make it work.") from problem
        bad = [name for name, value in found.items() if not value.isfinite().all()]
        expect(not bad, f"{case}: {', '.join(bad)} is not finite. Refuse it {refuse_it}, or make it work.")


def smaller(batch: Batch, *, size: int, classes: int) -> Batch:
    """The first `size` images of a batch, with labels of so many classes."""
    views = {}
    for name, view in batch.views.items():
        labels = view.labels[: size * len(view.labels) // len(batch.labels)]
        labels = labels % classes if labels.ndim == 1 else labels[:, :classes]
        views[name] = View(view.images[: len(labels)], labels)
    return replace(
        batch, images=batch.images[:size], labels=batch.labels[:size] % classes, indices=batch.indices[:size], views=views
    )


def poor(pair: Pair) -> Iterator[tuple[str, Pair, str]]:
    """Pairs that lack something, each after its name and before the way to refuse it."""
    student, teacher, parts = pair.student, pair.teacher, pair.teacher_parts
    shallow = replace(parts, norms=parts.norms[-1:])
    build = "in `build` with PairError"
    other = replace(parts, classifier_weight=torch.zeros(len(parts.classifier_bias), 99))
    lacking = {
        "a teacher without pre-activations": replace(pair, teacher=replace(teacher, preactivations=())),
        "a student without pre-activations": replace(pair, student=replace(student, preactivations=())),
        "a teacher without batch norms": replace(pair, teacher_parts=replace(parts, norms=())),
        "a teacher of one group": replace(pair, teacher=last_group(teacher), teacher_parts=shallow),
        "a student of one group": replace(pair, student=last_group(student)),
        "a student whose maps are single pixels": replace(pair, student=pixels(student)),
        "maps that are single pixels": replace(pair, student=pixels(student), teacher=pixels(teacher)),
    }
    yield from ((case, changed, build) for case, changed in lacking.items())
    unread = replace(pair, teacher=replace(teacher, pooled=(99,), pooled_maps=()), teacher_parts=other)
    maps = "a teacher whose classifier does not read its last group, and which has no `pooled_maps`"
    yield maps, unread, f"{build}, as kdbench.refuse_unclassified_maps does"
    yield "batches of one image", replace(pair, smallest_batch=1, largest_batch=1), "with min_batch_size = 2"
    two = TeacherParts(parts.classifier_weight[:2], parts.classifier_bias[:2], parts.norms)
    student, teacher = replace(student, logits=(2,)), replace(teacher, logits=(2,))
    labels = pair.labels % 2
    yield "two classes", replace(pair, student=student, teacher=teacher, labels=labels, teacher_parts=two), "with min_classes = 3"


def last_group(shapes: Shapes) -> Shapes:
    """Of a network whose only group is the last."""
    return replace(shapes, features=shapes.features[-1:], preactivations=shapes.preactivations[-1:])


def pixels(shapes: Shapes) -> Shapes:
    """Of a network whose groups give maps of 1x1."""
    maps = tuple((channels, 1, 1) for channels, *_ in shapes.features)
    return replace(shapes, features=maps, preactivations=maps, pooled_maps=(*shapes.pooled, 1, 1))
