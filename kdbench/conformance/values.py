"""Checks of the losses' values: the size of a batch, its order, and the precision."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from kdbench.conformance.points import mapped
from kdbench.conformance.setting import Broken, Example, expect, terms
from kdbench.conformance.subject import Subject

DRAWS = 48
ORDER = (3, 0, 7, 1, 6, 2, 5, 4)


def scalars(subject: Subject) -> None:
    """Each term is a finite tensor of shape ().

    Why: Terms are summed to one loss.

    Fix: Return a dict of means or sums, without `.item()`, and keep roots, quotients and logarithms away from 0.
    """
    for name, value in terms(subject.usual.method(), *subject.usual.example()).items():
        expect(bool(value.isfinite()), f"{name} is {value.item()} on usual inputs. Keep roots, quotients and logs away from 0.")


def batch_sizes(subject: Subject) -> None:
    """Batches of 17 images, one more than 16, and of 2 train.

    Why: The last batch of an epoch has what is left of the images.

    Fix: Take the size from `len(batch.labels)`, and set `min_batch_size` where one image is too few.
    """
    for size in (17, 2):
        subject.usual.step(size)


def bf16(subject: Subject) -> None:
    """Under autocast to bfloat16 it trains, and no term differs by more than 5 % from float32.

    Why: Suites may set `precision: bf16`, and small differences of large numbers lose their digits there.

    Fix: Decorate the function that computes the term with `kdbench.full_precision`.
    """
    replace(subject.usual, precision="bf16").step(8)
    fresh = subject.usual.method()
    student, teacher, batch = subject.usual.example()
    student, teacher = (mapped(outputs, lambda value: value.detach().bfloat16()) for outputs in (student, teacher))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = terms(copy.deepcopy(fresh), student, teacher, batch)
    exact = terms(copy.deepcopy(fresh), mapped(student, Tensor.float), mapped(teacher, Tensor.float), batch)
    for name, value in exact.items():
        expect(
            torch.allclose(rough[name].float(), value, rtol=0.05, atol=1e-4),
            f"{name} is {rough[name].item():.4g} in bfloat16 and {value.item():.4g} in float32. Decorate the function that "
            "computes it with kdbench.full_precision.",
        )


def permutation(subject: Subject) -> str | None:
    """The losses do not depend on the order of the batch, whose sample indices move along (float64, 1e-9).

    Why: The order of the images in a batch is drawn at random and means nothing.

    Fix: Treat all samples alike. Where an index of the formula runs over the batch, say "runs over the batch" in the docstring.
    """
    fresh = subject.usual.method().double()
    student, teacher, batch = subject.usual.example()
    order = torch.tensor(ORDER)
    student, teacher = (mapped(outputs, lambda value: value.detach().double()) for outputs in (student, teacher))
    moved_student, moved_teacher = (mapped(outputs, lambda value: value[order]) for outputs in (student, teacher))
    batch = replace(batch, images=batch.images.double())
    straight = student, teacher, batch
    moved = (
        moved_student,
        moved_teacher,
        replace(batch, images=batch.images[order], labels=batch.labels[order], indices=batch.indices[order]),
    )

    def values(example: Example, draw: int) -> Tensor:
        found = terms(copy.deepcopy(fresh), *example, draw=draw)
        return torch.stack([torch.zeros((), dtype=torch.float64), *found.values()]).detach()

    a, b = values(straight, 0), values(moved, 0)
    tolerance, remark = 1e-9 * a.abs() + 1e-12, None
    if not a.equal(values(straight, 1)):
        by_draw = [torch.stack([values(example, draw) for draw in range(DRAWS)]) for example in (straight, moved)]
        a, b = (sample.mean(0) for sample in by_draw)
        tolerance = tolerance + 6 * (torch.stack([sample.var(0) for sample in by_draw]).sum(0) / DRAWS).sqrt()
        remark = f"it draws at random, and the means of {DRAWS} draws agree"
    if ((a - b).abs() <= tolerance).all():
        return remark
    if "runs over the batch" in (subject.cls.__doc__ or ""):
        return "an index of its formula runs over the batch, as the docstring says"
    raise Broken(
        "the loss changes with the order of the batch. Treat all samples alike, or, where an index of the formula runs over the "
        "batch, say so in the docstring in these words."
    )
