"""The network that would be deployed: a student and what its method predicts with, kept beside its record and loaded again."""

import logging
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from kdbench.data import Dataset, SourceParams, Split
from kdbench.errors import KdbenchError, first_line
from kdbench.method.composition import Composition
from kdbench.method.interface import METHODS
from kdbench.models.weights import WEIGHTS
from kdbench.paths import has_path
from kdbench.results.layout import RECORD
from kdbench.results.students import AGAIN, StudentMetadata, read_student, write_student
from kdbench.spec.record import Data, Record, newer_keys, why_unreadable
from kdbench.spec.trial import TrialSpec
from kdbench.training.builder import Builder
from kdbench.training.deployed import Deployed, Normalise

log = logging.getLogger("kdbench")


def keep(folder: Path, student: nn.Module, method: Composition | None, *, data: Data) -> None:
    """Write a trained student into its trial's folder, and the parts of its method that predict."""
    predicting = Composition(method.predicting if method else {})
    write_student(folder, student.state_dict(), predicting.state_dict(), parts=[*predicting.parts], data=data)


def load(folder: Path, *, normalise: bool) -> Deployed:
    """The network that `keep` wrote, on the CPU, in evaluation mode; with `normalise` it takes bytes.

    Raises:
        KdbenchError: no record of a finished trial, no weights, or damaged ones, or `normalise` where an earlier kdbench kept them.
    """
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
        trial = TrialSpec.model_validate(record.spec)
    except OSError as problem:
        absent = isinstance(problem, (FileNotFoundError, NotADirectoryError))
        text = "is missing" if absent else f"cannot be read ({problem.strerror})"
        raise KdbenchError(f"{folder / RECORD} {text}. Give the folder of a finished trial, results/trials/...") from None
    except ValidationError as problem:
        fix = "" if newer_keys(problem) else " Train it again."
        raise KdbenchError(f"{folder / RECORD} cannot be used: {why_unreadable(problem)}.{fix}") from None
    kept = read_student(folder, record)
    metadata = kept.metadata
    normalising = None
    if metadata.mean is None or metadata.std is None:
        lacking = f"{folder / WEIGHTS} is of an earlier kdbench and lacks classes, mean, std and resize. {AGAIN}"
        if normalise:
            raise KdbenchError(f"{lacking}, or give images that you normalise, without normalise=True.")
        log.warning("%s.", lacking)
    elif normalise:
        normalising = Normalise(metadata.mean, metadata.std)
    builder = _builder(metadata)
    predicting = tuple(spec for spec in trial.methods if spec.name in metadata.parts)
    if files := [spec.name for spec in predicting if has_path(METHODS.get(spec.name).Params)]:
        raise KdbenchError(
            f"{folder}: {', '.join(files)} predicts with what it read from a file of its parameters, and its record has the file's "
            "hash alone. Build the method with build_method, and load weights.safetensors and method.safetensors into both."
        )
    method = Composition(builder.parts(trial.model_copy(update={"methods": predicting}), None) if predicting else {})
    try:
        student = builder.restored(trial, kept.student)
        method.load_state_dict(kept.method)
    except RuntimeError as problem:
        raise KdbenchError(f"the weights in {folder} fit its network or method no more ({first_line(problem)}).") from None
    network = Deployed(student, method, normalise=normalising).eval()
    network.classes, network.image_shape, network.resize = metadata.classes, metadata.image_shape, metadata.resize
    network.mean, network.std = metadata.mean, metadata.std
    return network


def _builder(metadata: StudentMetadata) -> Builder:
    """One for such images and so many classes, of which it holds none."""
    channels, height, width = metadata.image_shape
    none = Split(torch.empty(0, height, width, channels, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    classes = metadata.classes or tuple(map(str, range(metadata.num_classes)))
    mean, std = metadata.mean or (0.0,) * channels, metadata.std or (1.0,) * channels
    return Builder(Dataset(none, none, classes, mean=mean, std=std), SourceParams(), torch.device("cpu"))
