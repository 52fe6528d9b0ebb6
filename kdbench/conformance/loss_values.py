"""Checks of the losses' values: the size of a batch, its order, and the precision."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kdbench.conformance.hook_points import map_tensors, permuted, places
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import BrokenPromise, Example, expect
from kdbench.conformance.terms import loss_terms
from kdbench.method.batch import Batch, View
from kdbench.method.outputs import Outputs

DRAWS = 48
ORDER = (3, 0, 7, 1, 6, 2, 5, 4)


def scalars(tested: MethodUnderTest) -> None:
    """Each term is a finite tensor of shape ().

    Why: Terms are summed to one loss.

    Fix: Return a dict of means or sums, without `.item()`, and keep roots, quotients and logarithms away from 0.
    """
    for name, value in loss_terms(tested.default_setting.method(), *tested.default_setting.example_inputs()).items():
        expect(bool(value.isfinite()), f"{name} is {value.item()} on usual inputs. Keep roots, quotients and logs away from 0.")


def batch_sizes(tested: MethodUnderTest) -> str | None:
    """Batches of 17 images, one more than 16, and of 2 train.

    Why: The last batch of an epoch has what is left of the images.

    Fix: Take the size from `len(batch.labels)`, and set `min_batch_size` where one image is too few. If a term grows with the
    batch, the check says so: take the mean over the images, unless the formula has a sum.
    """
    for size in (17, 2):
        tested.default_setting.step(size)
    fresh = tested.default_setting.method()
    example = tested.default_setting.example_inputs()
    once, twice = (loss_terms(copy.deepcopy(fresh), *inputs) for inputs in (example, doubled(*example)))
    growth = {name: (twice[name] / value).item() for name, value in once.items() if value}
    found = [f"{name} is {factor:.3g} times as large" for name, factor in growth.items() if factor > 1.9]
    return f"if each image is there twice, {' and '.join(found)}; take the mean, unless the formula has a sum" if found else None


def doubled(student: Outputs, teacher: Outputs, batch: Batch) -> Example:
    """An example with each of its images twice."""

    def twice(value: Tensor) -> Tensor:
        return torch.cat([value, value])

    views = {name: View(twice(view.images), twice(view.labels)) for name, view in batch.views.items()}
    return (
        map_tensors(student, twice, classifiers=False),
        map_tensors(teacher, twice, classifiers=False),
        replace(batch, images=twice(batch.images), labels=twice(batch.labels), indices=twice(batch.indices), views=views),
    )


def mixed_images(tested: MethodUnderTest) -> str | None:
    """A batch of mixed images (mixup), whose labels are shares of classes, trains.

    Why: Recipes may mix images, and the cross-entropy then learns `batch.soft_labels`.

    Fix: Use `batch.labels` where a class is wanted, and `batch.cross_entropy` for a cross-entropy of your own.
    """
    if {"strong", "rotations"} & set(tested.method_class.views):
        return "suites refuse it beside a recipe that mixes, for its views are not mixed"
    tested.default_setting.step(8, mixup=0.8)
    return None


def bf16(tested: MethodUnderTest) -> None:
    """Under autocast to bfloat16 it trains, and no term differs by more than 5 % from float32.

    Why: Suites may set `precision: bf16`, and small differences of large numbers lose their digits there.

    Fix: Decorate the function of tensors that computes the term with `kdbench.full_precision`. Where `losses` computes it, move
    the formula into a function of its own: `losses` is given `Outputs`, and cannot be decorated.
    """
    replace(tested.default_setting, precision="bf16").step(8)
    fresh = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    rounded = partial(map_tensors, function=lambda value: value.detach().bfloat16(), classifiers=False)  # weights stay float32
    student, teacher = rounded(student), rounded(teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = loss_terms(copy.deepcopy(fresh), student, teacher, batch)
    exact = loss_terms(copy.deepcopy(fresh), map_tensors(student, Tensor.float), map_tensors(teacher, Tensor.float), batch)
    for name, value in exact.items():
        expect(
            torch.allclose(rough[name].float(), value, rtol=0.05, atol=1e-4),
            f"{name} is {rough[name].item():.4g} in bfloat16 and {value.item():.4g} in float32. Decorate the function of "
            "tensors that computes it with kdbench.full_precision; if `losses` does, move the formula into a function of its own.",
        )


def in_order(batch: Batch, order: Tensor) -> Batch:
    """The images of a batch, and of its views, in another order (B,)."""
    moved = {}
    for name, view in batch.views.items():
        where = places(order, len(view.images))
        moved[name] = View(view.images[where], view.labels[where])
    return replace(batch, images=batch.images[order], labels=batch.labels[order], indices=batch.indices[order], views=moved)


def permutation(tested: MethodUnderTest) -> str | None:
    """The losses do not depend on the order of the batch, whose sample indices move along (float64, 1e-9).

    Why: The order of the images in a batch is drawn at random and means nothing.

    Fix: Treat all samples alike. Where an index of the formula runs over the batch, say "runs over the batch" in the docstring.
    """
    fresh = tested.default_setting.method().double()
    student, teacher, batch = tested.default_setting.example_inputs()
    order = torch.tensor(ORDER)
    student, teacher = (map_tensors(outputs, lambda value: value.detach().double()) for outputs in (student, teacher))
    views = {name: View(view.images.double(), view.labels) for name, view in batch.views.items()}
    batch = replace(batch, images=batch.images.double(), views=views)
    straight = student, teacher, batch
    moved = permuted(student, order), permuted(teacher, order), in_order(batch, order)

    def terms(example: Example, draw: int) -> Tensor:
        found = loss_terms(copy.deepcopy(fresh), *example, draw=draw)
        return torch.stack([torch.zeros((), dtype=torch.float64), *found.values()]).detach()

    a, b = terms(straight, 0), terms(moved, 0)
    tolerance, remark = 1e-9 * a.abs() + 1e-12, None
    if not a.equal(terms(straight, 1)):
        by_draw = [torch.stack([terms(example, draw) for draw in range(DRAWS)]) for example in (straight, moved)]
        a, b = (sample.mean(0) for sample in by_draw)
        tolerance = tolerance + 6 * (torch.stack([sample.var(0) for sample in by_draw]).sum(0) / DRAWS).sqrt()
        remark = f"it draws at random, and the means of {DRAWS} draws agree"
    if ((a - b).abs() <= tolerance).all():
        return remark
    if "runs over the batch" in (tested.method_class.__doc__ or ""):
        return "an index of its formula runs over the batch, as the docstring says"
    raise BrokenPromise(
        "the loss changes with the order of the batch. Treat all samples alike. If an index of the formula runs over the batch, "
        "write `runs over the batch` in the docstring."
    )
