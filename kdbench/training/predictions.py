"""What a network answered to each test image, and the metrics that follow: sums of float64 numbers that no order can change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdbench.training.calibration import adaptive_calibration_error_pct, calibration_error_pct

TOP5_CLASSES = 10
"""Classes from which the top-5 error is of use."""


@dataclass(frozen=True)
class Predictions:
    """The answers of a network to N images, in their order; (N,) each, on the CPU.

    Attributes:
        labels: the true classes, int64.
        predicted: the classes with the largest logits, int64.
        in_top5: whether the true class is among the five with the largest logits; of equal ones the first count.
        nll: negative log-likelihood of the true class, in nats.
        confidence: the probability of the predicted class.
        agrees: whether the teacher predicts the same class; None without a teacher that has the same logits.
        kl: KL(teacher || student) in nats; None likewise.
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    in_top5: npt.NDArray[np.bool_]
    nll: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    agrees: npt.NDArray[np.bool_] | None = None
    kl: npt.NDArray[np.float64] | None = None

    @classmethod
    def joined(cls, batches: list[dict[str, Tensor]]) -> Predictions:
        """Those of successive batches; the host waits for the device."""
        return cls(**{name: torch.cat([batch[name] for batch in batches]).cpu().numpy() for name in batches[0]})

    def metrics(self, num_classes: int) -> dict[str, Any]:
        """The fields of a record that follow, by name; None where a metric has no meaning."""
        right = self.predicted == self.labels
        return {
            "test_top5_error_pct": _percent(~self.in_top5) if num_classes >= TOP5_CLASSES else None,
            "test_nll": _mean(self.nll),
            "test_ece_pct": calibration_error_pct(self.confidence, right),
            "test_adaptive_ece_pct": adaptive_calibration_error_pct(self.confidence, right),
            "teacher_agreement_pct": None if self.agrees is None else _percent(self.agrees),
            "teacher_kl": None if self.kl is None else _mean(self.kl),
        }


def batch_predictions(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> dict[str, Tensor]:
    """The fields of `Predictions` for one batch: logits (B, K), labels (B,). They stay on the device, and nothing waits for it."""
    scores, label, classes = logits.double(), labels[:, None], torch.arange(logits.shape[1], device=logits.device)
    own = scores.gather(1, label)
    ahead = (scores > own) | ((scores == own) & (classes < label))
    log_p = scores.log_softmax(1)
    found = {
        "labels": labels,
        "predicted": logits.argmax(1),
        "in_top5": ahead.sum(1) < 5,
        "nll": -log_p.gather(1, label).squeeze(1),
        "confidence": log_p.amax(1).exp(),
    }
    if teacher_logits is not None:
        teacher_log_p = teacher_logits.double().log_softmax(1)
        found["agrees"] = found["predicted"] == teacher_logits.argmax(1)
        found["kl"] = (teacher_log_p.exp() * (teacher_log_p - log_p)).sum(1)
    return found


def _mean(values: npt.NDArray[np.float64]) -> float:
    return math.fsum(values) / len(values)


def _percent(holds: npt.NDArray[np.bool_]) -> float:
    return 100 * int(holds.sum()) / len(holds)
