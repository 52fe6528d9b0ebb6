"""The network that would be deployed: a student and what its method predicts with, kept beside its record and loaded again."""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdbench.errors import KdbenchError, first_line
from kdbench.method import Composition, Method, Pair
from kdbench.models import build_model
from kdbench.models.measure import parameters, shapes
from kdbench.record import Record
from kdbench.streams import seeded, streams_kept
from kdbench.trial import TrialSpec, build_part
from kdbench.weights import METHOD, WEIGHTS, read_foreign, state_hash, write_weights

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
    """Write a trained student, for images (C, H, W), into its trial's folder, and the parts of its method that predict."""
    parts = nn.ModuleDict({name: part for name, part in method.parts.items() if _predicts(part)} if method else {})
    head = {
        "image_shape": image_shape,
        "num_classes": num_classes,
        "parts": [*parts],
        "parts_sha256": state_hash(parts.state_dict()),
    }
    # One entry, since safetensors writes several in any order.
    write_weights(folder / WEIGHTS, student.state_dict(), metadata={MADE_FOR: json.dumps(head)})
    (folder / METHOD).unlink(missing_ok=True)
    if parts:
        write_weights(folder / METHOD, parts.state_dict())


def _predicts(part: Method) -> bool:
    return type(part).predict is not Method.predict or bool(part.deployed())


def load(folder: Path) -> Deployed:
    """The network that `keep` wrote, on the CPU, in evaluation mode.

    Raises:
        KdbenchError: no record of a finished trial, no weights, or damaged ones.
    """
    try:
        record = Record.model_validate_json((folder / "record.json").read_bytes())
        with safe_open(folder / WEIGHTS, "pt") as file:
            made_for = (file.metadata() or {}).get(MADE_FOR)
        state = read_foreign(folder / WEIGHTS)
        trial = TrialSpec.model_validate(record.spec)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise KdbenchError(
            f"{problem.filename or folder / WEIGHTS} is missing. Give the folder of a finished trial, results/trials/..., of a "
            "suite with `keep_students: true`; for trials that were done without it, run the suite with --rerun all."
        ) from None
    except (ValidationError, SafetensorError) as problem:
        raise KdbenchError(f"{folder} holds no whole record and weights ({first_line(problem)}). Train it again.") from None
    if not made_for:
        raise KdbenchError(
            f"{folder / WEIGHTS} is of an earlier kdbench, which did not note for which images it is. Train it again."
        )
    head = json.loads(made_for)
    (channels, height, width), classes = head["image_shape"], head["num_classes"]
    # As in training: a constructor may draw what no state holds.
    with seeded(trial.seed, "student", trial.student):
        network = build_model(trial.student, num_classes=classes, in_channels=channels, hooks=trial.hooks, image_size=height)
    parts = {}
    if head["parts"]:
        pair = _pair(trial, (channels, height, width), classes)
        for spec in trial.methods:
            if spec.name in head["parts"]:
                with seeded(trial.seed, "adapters", spec.name):
                    parts[spec.name] = build_part(spec, pair)
    found = read_foreign(folder / METHOD) if parts and (folder / METHOD).exists() else {}
    if state_hash(state) != record.weights_sha256 or state_hash(found) != head["parts_sha256"]:
        raise KdbenchError(f"the weights in {folder} are not those that its training left. Train it again, or give a whole copy.")
    try:
        network.load_state_dict(state)
        nn.ModuleDict(parts).load_state_dict(found)
    except RuntimeError as problem:
        raise KdbenchError(f"the weights in {folder} fit its network or method no more ({first_line(problem)}).") from None
    return Deployed(network, Composition(parts)).eval()


def _pair(trial: TrialSpec, image_shape: tuple[int, int, int], num_classes: int) -> Pair:
    """The trial's pair, without the training images and with another teacher's numbers: those that are deployed are in the file."""
    teacher = trial.teacher or trial
    of_student, of_teacher = (
        shapes(spec.student, image_shape=image_shape, num_classes=num_classes, hooks=spec.hooks) for spec in (trial, teacher)
    )
    channels, height, _ = image_shape
    with streams_kept():
        blank = build_model(teacher.student, num_classes=num_classes, in_channels=channels, hooks=teacher.hooks, image_size=height)
    return Pair(of_student, of_teacher, torch.zeros(1, dtype=torch.int64), blank.teacher_parts(), image_shape)
