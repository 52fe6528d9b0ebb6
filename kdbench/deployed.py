"""The network that would be deployed: a student and what its method predicts with, kept beside its record and loaded again."""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdbench.data import Dataset, SourceParams, Split
from kdbench.errors import KdbenchError, first_line
from kdbench.method import Composition, Method
from kdbench.models.measure import parameters
from kdbench.record import Record
from kdbench.training.bench import Bench
from kdbench.trial import TrialSpec
from kdbench.weights import METHOD, WEIGHTS, read_safetensors, state_hash, write_weights

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
    predicting = Composition({name: part for name, part in method.parts.items() if _predicts(part)} if method else {})
    state = predicting.state_dict()
    head = {"image_shape": image_shape, "num_classes": num_classes, "parts": [*predicting.parts], "parts_sha256": state_hash(state)}
    # One entry, since safetensors writes several in any order.
    write_weights(folder / WEIGHTS, student.state_dict(), metadata={MADE_FOR: json.dumps(head)})
    (folder / METHOD).unlink(missing_ok=True)
    if predicting.parts:
        write_weights(folder / METHOD, state)


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
        state = read_safetensors(folder / WEIGHTS)
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
    bench = _bench(head["image_shape"], head["num_classes"])
    predicting = tuple(spec for spec in trial.methods if spec.name in head["parts"])
    method = bench.composition(trial.model_copy(update={"methods": predicting}), None) if predicting else Composition({})
    found = read_safetensors(folder / METHOD) if predicting and (folder / METHOD).exists() else {}
    if state_hash(state) != record.weights_sha256 or state_hash(found) != head["parts_sha256"]:
        raise KdbenchError(f"the weights in {folder} are not those that its training left. Train it again, or give a whole copy.")
    try:
        network = bench.restored(trial, state)
        method.load_state_dict(found)
    except RuntimeError as problem:
        raise KdbenchError(f"the weights in {folder} fit its network or method no more ({first_line(problem)}).") from None
    return Deployed(network, method).eval()


def _bench(image_shape: tuple[int, int, int], num_classes: int) -> Bench:
    """One for such images and so many classes, of which it holds none."""
    channels, height, width = image_shape
    none = Split(torch.empty(0, height, width, channels, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    dataset = Dataset(none, none, tuple(map(str, range(num_classes))), mean=(0.0,) * channels, std=(1.0,) * channels)
    return Bench(dataset, SourceParams(), torch.device("cpu"))
