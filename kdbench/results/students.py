"""A student that was kept beside its record: its tensors and what it was made for, written, and read again whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdbench.errors import KdbenchError, first_line
from kdbench.models.weights import METHOD, WEIGHTS, State, read_safetensors, state_hash, write_weights
from kdbench.spec.record import Data, Record

MADE_FOR = "made_for"
"""The entry in the head of a file of weights that says for which images and classes."""

AGAIN = "Train it again with `kdbench run SUITE --rerun weights`, where the suite has `keep_students: true`"


class StudentMetadata(BaseModel):
    """What a student was trained on, as `kdbench.spec.record.Data` has it, and which parts of its method it predicts with.

    Weights that an earlier kdbench kept have None for all that feeding them needs.
    """

    model_config = ConfigDict(frozen=True)

    image_shape: tuple[int, int, int]
    num_classes: int
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: dict[str, int] | None = None
    parts: tuple[str, ...]
    parts_sha256: str


@dataclass(frozen=True)
class StoredStudent:
    """A student as it was kept: `method` holds the tensors of those parts of its method that predict."""

    metadata: StudentMetadata
    student: dict[str, Tensor]
    method: dict[str, Tensor]


def write_student(folder: Path, student: State, method: State, *, parts: Sequence[str], data: Data) -> None:
    """Write a student, and those `parts` of its method that predict, into its trial's folder."""
    metadata = StudentMetadata(
        **data.model_dump(include={"image_shape", "classes", "mean", "std", "resize"}),
        num_classes=len(data.classes),
        parts=tuple(parts),
        parts_sha256=state_hash(method),
    )
    # One entry, since safetensors writes several in any order.
    write_weights(folder / WEIGHTS, student, metadata={MADE_FOR: metadata.model_dump_json()})
    (folder / METHOD).unlink(missing_ok=True)
    if parts:
        write_weights(folder / METHOD, method)


def read_student(folder: Path, record: Record) -> StoredStudent:
    """What `write_student` wrote for the trial of `record`.

    Raises:
        KdbenchError: the trial has failed, nothing was kept, or it is damaged or of an early kdbench.
        PermissionError: it is there and may not be read.
    """
    file = folder / WEIGHTS
    if record.status == "failed":
        raise KdbenchError(
            f"{folder} is of a trial that has failed and left no student ({record.reason}). Fix that, and use --rerun failed."
        )
    try:
        file.open("rb").close()  # safetensors calls missing what may not be read
        with safe_open(file, "pt") as head:
            metadata = StudentMetadata.model_validate_json((head.metadata() or {})[MADE_FOR])
        student = read_safetensors(file)
        method = read_safetensors(folder / METHOD) if metadata.parts and (folder / METHOD).is_file() else {}
    except FileNotFoundError:
        raise KdbenchError(f"{file} is missing: the trial is done and its student was not kept. {AGAIN}.") from None
    except PermissionError:
        raise
    except KeyError:
        raise KdbenchError(f"{file} is of an early kdbench, which did not note for which images it is. {AGAIN}.") from None
    except (SafetensorError, ValidationError, OSError) as problem:
        raise KdbenchError(f"{file} is damaged ({first_line(problem)}). {AGAIN}, or put a whole copy back.") from None
    if state_hash(student) != record.weights_sha256 or state_hash(method) != metadata.parts_sha256:
        raise KdbenchError(f"the weights in {folder} are not those that its training left. {AGAIN}, or put a whole copy back.")
    return StoredStudent(metadata, student, method)


def has_student(folder: Path, record: Record) -> bool:
    """Whether a student lies there whole, with all that feeding it needs."""
    try:
        return read_student(folder, record).metadata.mean is not None
    except KdbenchError:
        return False
