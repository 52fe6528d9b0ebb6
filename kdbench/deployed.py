"""The network that would be deployed: a student and what its method predicts with, kept beside its record and loaded again."""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method import Composition, Pair
from kdbench.models import build_model
from kdbench.models.measure import parameters, shapes
from kdbench.record import Record
from kdbench.trial import TrialSpec, build_part
from kdbench.weights import METHOD, WEIGHTS, read_foreign, read_weights, write_weights

MADE_FOR = "made_for"
"""The entry in the head of a file of weights that says for which images and how many classes."""


class Deployed(nn.Module):
    """The network that would be deployed: the student, and what its method predicts with."""

    def __init__(self, student: nn.Module, method: Composition) -> None:
        super().__init__()
        self.student = student
        self.method = method

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return parameters(self.student) + sum(tensor.numel() for tensor in self.method.deployed())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return self.method.predict(self.student(images))


def keep(
    folder: Path, student: nn.Module, method: Composition | None, *, image_shape: tuple[int, int, int], num_classes: int
) -> None:
    """Write a trained student, for images (C, H, W), into its trial's folder, and the parts of its method that are deployed."""
    # One entry, since safetensors writes several in any order.
    made_for = json.dumps({"image_shape": image_shape, "num_classes": num_classes})
    write_weights(folder / WEIGHTS, student.state_dict(), metadata={MADE_FOR: made_for})
    parts = {name: part for name, part in method.parts.items() if part.deployed()} if method else {}
    if parts:
        write_weights(folder / METHOD, nn.ModuleDict(parts).state_dict())


def load(folder: Path) -> Deployed:
    """The network that `keep` wrote, on the CPU, in evaluation mode.

    Raises:
        KdbenchError: no record of a finished trial, no weights or damaged ones.
    """
    try:
        record = Record.model_validate_json((folder / "record.json").read_bytes())
        with safe_open(folder / WEIGHTS, "pt") as file:
            made_for = (file.metadata() or {}).get(MADE_FOR)
    except FileNotFoundError as problem:
        raise KdbenchError(
            f"{problem.filename or folder / WEIGHTS} is missing. Give the folder of a finished trial, results/trials/..., of a "
            "suite with `keep_students: true`."
        ) from None
    except (ValidationError, SafetensorError) as problem:
        raise KdbenchError(f"{folder} holds no whole record and weights ({type(problem).__name__}). Train it again.") from None
    state = read_weights(folder / WEIGHTS, sha256=record.weights_sha256 or "")
    if not made_for or state is None:
        raise KdbenchError(f"the weights in {folder} are not those of its record, or of an earlier kdbench. Train it again.")
    trial = TrialSpec.model_validate(record.spec)
    head = json.loads(made_for)
    (channels, height, width), classes = head["image_shape"], head["num_classes"]
    network = build_model(trial.student, num_classes=classes, in_channels=channels, hooks=trial.hooks, image_size=height)
    network.load_state_dict(state)
    parts = {}
    if (folder / METHOD).exists():
        found = read_foreign(folder / METHOD)
        pair = _pair(trial, (channels, height, width), classes)
        parts = {
            spec.name: build_part(spec, pair) for spec in trial.methods if any(key.startswith(f"{spec.name}.") for key in found)
        }
        nn.ModuleDict(parts).load_state_dict(found)
    return Deployed(network, Composition(parts)).eval()


def _pair(trial: TrialSpec, image_shape: tuple[int, int, int], num_classes: int) -> Pair:
    """The trial's pair, without the training images and with another teacher's numbers: those that are deployed are in the file."""
    teacher = trial.teacher or trial
    of_student, of_teacher = (
        shapes(spec.student, image_shape=image_shape, num_classes=num_classes, hooks=spec.hooks) for spec in (trial, teacher)
    )
    channels, height, _ = image_shape
    blank = build_model(teacher.student, num_classes=num_classes, in_channels=channels, hooks=teacher.hooks, image_size=height)
    return Pair(of_student, of_teacher, torch.zeros(1, dtype=torch.int64), blank.teacher_parts(), image_shape)
