"""What a lane adds up over the batches of an epoch, on the device, and the row of curves that comes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.training.step_losses import StepLosses

Row = dict[str, Any]
"""One epoch of a lane, as a line of `curves.jsonl` holds it."""

_UNUSED = "cross_entropy, not trained on"
"""The sum against which the terms are held of a method that gives the cross-entropy no weight."""


class EpochSums:
    """The sums of one epoch.

    Attributes:
        tensors: () each, float64, on the device: `loss`, `wrong` and each term, times the images of their batches.
        images: how many were trained on.
        balance: norms of the gradients of `transfer` and `cross_entropy`, where they were measured.
        first: the terms of the first step, () each: what is not finite there began it.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.begin(keep_tensors=False)

    def begin(self, *, keep_tensors: bool) -> None:
        """Start an epoch at zero; a graph that adds to the tensors needs the same ones."""
        self.tensors = {name: value.zero_() for name, value in self.tensors.items()} if keep_tensors else {}
        self.images = 0
        self.balance: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}

    def add(self, losses: StepLosses) -> None:
        """Add what a step came to; nothing waits for the device."""
        if self.images == 0:
            of_all = losses.terms if losses.ce is None else {**losses.terms, "cross_entropy": losses.ce}
            self.first = {name: term.detach() for name, term in of_all.items()}
        if losses.wrong is not None:
            self._add("wrong", losses.wrong)
        self._add("loss", losses.total.detach() * losses.images)
        for name, term in losses.terms.items():
            self._add(name, term.detach() * losses.images)
        if losses.ce is not None:
            self._add("cross_entropy" if losses.ce_weight else _UNUSED, losses.ce.detach() * losses.images)

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.tensors:
            self.tensors[name] += value.double()
        else:
            self.tensors[name] = value.double()

    def row(self, *, own_s: float, data_s: float, teacher_s: float, startup_s: float) -> Row:
        """The epoch's row; here the host waits for the device.

        Args:
            own_s: seconds of the lane's own steps.
            data_s: seconds that batches took.
            teacher_s: seconds of the teacher's forward passes, 0 where the lane reads none.
            startup_s: seconds of compiling and of recording graphs.
        """
        values = dict(zip(self.tensors, torch.stack(list(self.tensors.values())).tolist(), strict=True))
        wrong = values.pop("wrong", None)
        means = {name: value / self.images for name, value in values.items()}
        loss, unused_ce = means.pop("loss"), means.pop(_UNUSED, None)
        row: Row = {
            "train_loss": loss,
            "terms": means,
            "train_s": own_s + data_s + teacher_s,
            "data_s": data_s,
            "teacher_s": teacher_s,
            "startup_s": startup_s,
            "images": self.images,
        }
        if wrong is not None:
            row["train_error_pct"] = 100 * wrong / self.images
        ce = means.get("cross_entropy", unused_ce)
        if ce and len(means) > ("cross_entropy" in means):
            row["loss_ratio"] = sum(mean for name, mean in means.items() if name != "cross_entropy") / ce
        if self.balance:
            norms = {name: float(value) for name, value in self.balance.items()}
            row["gradient_ratio"] = norms["transfer"] / norms["cross_entropy"] if norms["cross_entropy"] else None
        return row
