"""Which test images a trial got wrong, and for what it took them: packed into a file beside its record."""

from __future__ import annotations

import io
import logging
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.paths import expanded, found
from kdbench.results.layout import RECORD
from kdbench.spec.record import Record

log = logging.getLogger("kdbench")

OUTCOMES = "outcomes.npz"


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of each of N test images in K classes: what `load_outcomes` gives for one trial.

    Images stand in the order of the data set.

    Attributes:
        wrong: (N,), bool, the images that the network got wrong.
        images_by_class: (K,), int64, how many images each class has.
        mistakes: (M, 3), int64, in each row a true class, the class that was predicted for it, and for how many images. Rows are
            sorted, and what never happened has no row.
        data_fingerprint: that of the trial's record. Two trials can be compared image by image where it is the same.
        classes: their names; empty where they are not known, as in exported files and in records of earlier versions.
    """

    wrong: npt.NDArray[np.bool_]
    images_by_class: npt.NDArray[np.int64]
    mistakes: npt.NDArray[np.int64]
    data_fingerprint: str
    classes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, num_classes: int, data_fingerprint: str
    ) -> Outcomes:
        """Those of the predictions (N,) for images with the labels (N,)."""
        wrong = labels != predicted
        kinds, images = np.unique(np.stack((labels, predicted), 1)[wrong], axis=0, return_counts=True)
        return cls(wrong, np.bincount(labels, minlength=num_classes), np.column_stack((kinds, images)), data_fingerprint)

    @property
    def error_pct(self) -> float:
        """Percent of the images that it got wrong."""
        return 100 * int(self.wrong.sum()) / len(self.wrong)

    @cached_property
    def class_error_pct(self) -> npt.NDArray[np.float64]:
        """(K,), float64: the error in percent on the images of each class; NaN for a class without test images."""
        wrong = np.bincount(self.mistakes[:, 0], weights=self.mistakes[:, 2], minlength=len(self.images_by_class))
        with np.errstate(invalid="ignore"):
            return 100 * wrong / self.images_by_class

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(K, K), int64: at [i, j] how many images of class i were taken for class j. It is made anew at each call."""
        true, predicted, images = self.mistakes.T
        size = max(len(self.images_by_class), predicted.max(initial=0) + 1)  # older records may have others
        matrix = np.zeros((size, size), np.int64)
        matrix[true, predicted] = images
        right = self.images_by_class - matrix.sum(1)[: len(self.images_by_class)]
        np.fill_diagonal(matrix[: len(right), : len(right)], right)
        return matrix

    def packed(self) -> bytes:
        """The bytes of the file: 1 bit for each image, and a few bytes for each kind of mistake."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            wrong=np.packbits(self.wrong),
            images_by_class=self.images_by_class.astype(np.int32),
            mistakes=self.mistakes.T.astype(np.int32),
        )
        return file.getvalue()

    @classmethod
    def unpacked(cls, packed: bytes, *, data_fingerprint: str, classes: tuple[str, ...] = ()) -> Outcomes:
        """What `packed` made bytes of.

        Raises:
            BadZipFile, zlib.error, EOFError, ValueError, KeyError: they are damaged.
        """
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            by_class, mistakes = (arrays[name].astype(np.int64) for name in ("images_by_class", "mistakes"))
            wrong = np.unpackbits(arrays["wrong"], count=int(by_class.sum())).astype(np.bool_)
        return cls(wrong, by_class, mistakes.T, data_fingerprint, classes)


def load_outcomes(path: str | Path, trials: Iterable[str]) -> dict[str, Outcomes]:
    """For trials of a results directory, which test images they got wrong, and for what they took them.

    Trials that are not done, and those of earlier versions, which kept nothing of the kind, are left out.

    Compare two trials image by image only where their `data_fingerprint` is equal: else the same place holds another image.

    Args:
        path: a results directory.
        trials: their identities, as in the column `trial` of `load_results`. Those of teachers stand in `teacher_trial`.

    Raises:
        KdbenchError: `trials` is one text and no list.
    """
    if isinstance(trials, str):
        raise KdbenchError(f"trials: {trials!r} is no list. Write trials=[{trials!r}].")
    loaded = {}
    for trial in trials:
        folder = expanded(path) / "trials" / trial
        if found(folder / OUTCOMES) and (outcomes := _read(folder)):
            loaded[trial] = outcomes
    return loaded


def misfit(outcomes: Outcomes, error_pct: float) -> str | None:
    """Why they are not those of a record with this test error, in percent; None where they may be."""
    if math.isclose(outcomes.error_pct, error_pct, rel_tol=1e-9, abs_tol=1e-9):
        return None
    return f"it has a test error of {outcomes.error_pct:g} %, the record has {error_pct:g} %"


def _read(folder: Path) -> Outcomes | None:
    """Those of a trial that is done; a damaged file is named and left out."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # only what is done counts
    if record.status != "done":
        return None
    try:
        classes = record.data.classes if record.data else ()
        packed = (folder / OUTCOMES).read_bytes()
        outcomes = Outcomes.unpacked(packed, data_fingerprint=record.data_fingerprint, classes=classes)
        assert record.test_error_pct is not None, "it is done"
        if reason := misfit(outcomes, record.test_error_pct):
            raise ValueError(reason)
    except (BadZipFile, zlib.error, EOFError, ValueError, KeyError) as problem:
        log.warning("%s is left out: it is damaged (%s). Put a whole copy back.", folder / OUTCOMES, problem)
        return None
    return outcomes
