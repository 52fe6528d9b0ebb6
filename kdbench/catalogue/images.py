"""What images a data set has, as far as that can be told without reading or downloading any: as a value, as lines."""

from __future__ import annotations

from pathlib import Path

from kdbench.catalogue.text import Value
from kdbench.data import Contents, Source, SourceParams
from kdbench.data.division import refuse_division
from kdbench.errors import KdbenchError
from kdbench.spec.record import ImageCounts, images_text
from kdbench.suite.tuning import Tuning

Known = Contents | KdbenchError | None
"""The images, what is wrong with them, or None where only a run can tell."""


def contents_of(source: tuple[type[Source], SourceParams], *, cache: Path, tuning: Tuning | None = None) -> Known:
    """How many images there are; what is wrong with them where something is; None where only a run can tell.

    Args:
        tuning: which holds some of the images out: where it trains any, see that they can be divided so, too.
    """
    kind, params = source
    try:
        if found := kind(params, cache=cache).contents():
            refuse_division(found, params)
            if tuning and tuning.suite.trials:
                refuse_division(found, tuning.suite.source[1])
        return found
    except KdbenchError as problem:
        return problem


Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels scaled to 0..1."""


def normalisation_of(kind: type[Source]) -> Normalisation | None:
    """What a kind of data set normalises images with; None where its parameters or only the images tell."""
    needs = any(field.is_required() for field in kind.Params.model_fields.values())
    return None if needs else kind(kind.Params(), cache=Path()).normalisation


def normalisation_text(found: Normalisation) -> str:
    """How pixels become what networks see: `pixels: 0..1, normalised with mean 0.2860 and std 0.3530`."""
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in found)
    return f"pixels: 0..1, normalised with mean {mean} and std {std}"


def contents_as_json(contents: Known) -> Value | None:
    """`classes`, `image_shape`, `train_images`, `test_images`, `passed_over_files` and `notes`; None where they are not known."""
    if not isinstance(contents, Contents):
        return None
    return {
        "classes": list(contents.classes),
        "image_shape": list(contents.image_shape),
        "train_images": ImageCounts.of(contents.train).model_dump(),
        "test_images": ImageCounts.of(contents.test).model_dump(),
        "passed_over_files": dict(contents.passed_over),
        "notes": list(contents.notes),
    }


def contents_as_lines(contents: Known) -> list[str]:
    """How many images there are, what was skipped, and what else a reader must know; or what is wrong with them."""
    if not isinstance(contents, Contents):
        return [f"images: {contents}"] if contents else []
    train, test = ImageCounts.of(contents.train), ImageCounts.of(contents.test)
    return [
        images_text(train, test, classes=len(contents.classes), passed_over=contents.passed_over),
        *(f"note: {note}." for note in contents.notes),
    ]
