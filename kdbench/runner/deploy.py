"""A finished student as a file for other programs, with what feeding it needs, and its error measured again on that file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from kdbench.data import DATASETS, Source, SourceParams
from kdbench.errors import KdbenchError, first_line
from kdbench.files import write_bytes
from kdbench.models import MODELS
from kdbench.results.trial_folder import TrialFolder
from kdbench.runner.deploy_formats import BATCH, FORMATS
from kdbench.runner.students import load
from kdbench.spec.record import Record
from kdbench.suite.suite import Suite
from kdbench.training.builder import Builder
from kdbench.training.deployed import Deployed
from kdbench.training.device import environment, exact
from kdbench.training.evaluation import Predict, error_pct


@dataclass(frozen=True)
class DeployedFile:
    """What was written.

    Attributes:
        file: the network.
        metadata: the JSON file beside it.
        record: of the trial.
        error_pct: test error in percent of the network that was read from the file; None where it was not measured.
        test_images: how many images that is over; 0 where it was not measured.
        not_measured: why it was not; empty where it was.
    """

    file: Path
    metadata: Path
    record: Record
    error_pct: float | None = None
    test_images: int = 0
    not_measured: str = ""


def deploy(trial: TrialFolder, *, kind: str, directory: Path, suite: Suite | None = None) -> DeployedFile:
    """Write a trial's network as `model.KIND`, and what using it needs as `model.KIND.json`.

    Args:
        trial: the folder of a finished trial that kept its weights.
        kind: one of `FORMATS`.
        directory: where to write; made where it does not exist.
        suite: whose test images the file is tested on; None for those that the record names, if they can be had.

    Raises:
        KdbenchError: no weights, a package is missing, the network cannot be written so, or the directory has a file of such a
            name that is not this trial's.
    """
    chosen = FORMATS[kind]
    if missing := [name for name in chosen.needs if importlib.util.find_spec(name) is None]:
        raise KdbenchError(f"--format {kind} needs {' and '.join(missing)}. Install them with `pip install 'kdbench[{kind}]'`.")
    file, metadata = directory / f"model.{kind}", directory / f"model.{kind}.json"
    _refuse_to_overwrite(file, metadata, trial)
    if trial.record and (model := trial.record.spec["student"]) not in MODELS:
        raise KdbenchError(
            f"the network '{model}' is not known here. Give the suite that names its file under `plugins`, with --suite, or the "
            "file itself, with --plugin."
        )
    network = load(trial.path, normalise=True)
    record = trial.record
    assert record, "a network was loaded"
    images = torch.randint(256, (BATCH, *network.image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    directory.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial.{file.name}")
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # exporters warn of what is in their own hands
            chosen.write(network, images, partial)
            predict = chosen.read(partial, load(trial.path, normalise=True))
            torch.testing.assert_close(predict(images), network(images), rtol=1e-3, atol=1e-3)
    except Exception as problem:  # networks are others' code, and may hold what cannot be exported
        partial.unlink(missing_ok=True)
        raise KdbenchError(
            f"{record.student} cannot be exported as {kind} ({first_line(problem)}). Try another --format."
        ) from None
    measured = _measured(predict, trial, suite)
    partial.replace(file)
    made = DeployedFile(file, metadata, record, **measured)
    write_bytes(made.metadata, json.dumps(_metadata(made, network, kind), indent=1).encode())
    return made


def _refuse_to_overwrite(file: Path, metadata: Path, trial: TrialFolder) -> None:
    """See that the files which are there, if any, are of the same trial."""
    there = next((path for path in (file, metadata) if path.exists()), None)
    if there is None:
        return
    try:
        owner = json.loads(metadata.read_bytes())["trial"]["trial"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise KdbenchError(
            f"{there} exists already, and kdbench did not write it. Move it away, or choose another --output."
        ) from None
    if owner != trial.trial:
        raise KdbenchError(f"{there} is of another trial, {owner}. Choose another --output.")


def _measured(predict: Predict, trial: TrialFolder, suite: Suite | None) -> dict[str, Any]:
    """The test error of a network that takes bytes and on how many images it is, or why there is none."""
    record = trial.record
    assert record
    try:
        source, params = suite.source if suite else _source(record)
        dataset = source(params, cache=trial.path.parents[1] / "cache").load()
    except KdbenchError as problem:
        return {"not_measured": str(problem)}
    if dataset.fingerprint != record.data_fingerprint:
        return {"not_measured": f"the images of '{record.dataset}' here are others than those of the record."}
    plain = replace(dataset, mean=(0.0,) * len(dataset.mean), std=(1.0,) * len(dataset.std))
    builder = Builder(plain, params, torch.device("cpu"))
    with exact(builder.device, precision="fp32", image_shape=dataset.image_shape):
        error = error_pct(lambda images: predict(_bytes(images)), builder.test_data, precision="fp32")
    return {"error_pct": error, "test_images": len(dataset.test)}


def _bytes(images: Tensor) -> Tensor:
    """Images that were scaled to 0..1, as they were before."""
    return images.mul(255).round().to(torch.uint8).contiguous()


def _source(record: Record) -> tuple[type[Source], SourceParams]:
    """The data set that a record names, which does not say where its files lie."""
    source = DATASETS.get(record.spec["dataset"]["name"])
    try:
        return source, source.Params.model_validate(record.spec["dataset"]["params"])
    except ValidationError:
        raise KdbenchError(
            f"the record does not say where the images of '{record.dataset}' lie. Give the suite that does, with --suite."
        ) from None


def _metadata(made: DeployedFile, network: Deployed, kind: str) -> dict[str, Any]:
    """What a program needs to feed the network and read its answers, and where it comes from."""
    channels, height, width = network.image_shape
    record = made.record
    return {
        "file": made.file.name,
        "sha256": hashlib.sha256(made.file.read_bytes()).hexdigest(),
        "format": kind,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", channels, height, width],
            "values": "0 to 255; grey" if channels == 1 else "0 to 255; red, green, blue",
            "normalised_inside": True,
        },
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(network.classes or ())]},
        "classes": network.classes,
        "mean": network.mean,
        "std": network.std,
        "image_size": {"height_px": height, "width_px": width},
        "resize": network.resize,
        "test_error_pct": {
            "of_the_record": record.test_error_pct,
            "of_this_file": made.error_pct,
            "test_images": made.test_images or None,
            "not_measured": made.not_measured or None,
        },
        "trial": {
            "trial": record.trial,
            "dataset": record.dataset,
            "teacher": record.teacher,
            "student": record.student,
            "method": record.setting or record.method,
            "seed": record.seed,
            "weights_sha256": record.weights_sha256,
        },
        "made_with": environment(torch.device("cpu")).model_dump(exclude_none=True),
    }


def deployed_as_lines(made: DeployedFile) -> Sequence[str]:
    """Where the files lie, what the one takes, and how the error compares with the record's."""
    record = made.record
    lines = [str(made.file), str(made.metadata), FORMATS[made.file.suffix.removeprefix(".")].takes]
    if made.error_pct is None:
        lines.append(f"The test error of the file was not measured again: {made.not_measured}")
        lines.append(f"The record says {record.test_error_pct:.2f} %.")
        return lines
    told = f"Test error of the file: {made.error_pct:.2f} % of {made.test_images:,} images"
    if made.error_pct == record.test_error_pct:
        return [*lines, f"{told}, as in the record."]
    where = f"with {record.precision} on {record.environment.device}"
    return [*lines, f"{told}; the record says {record.test_error_pct:.2f} %, {where}."]
