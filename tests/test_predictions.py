"""What is measured of a network's answers after the last epoch equals what scikit-learn, scipy and numpy make of its logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import CLASSES, TEST_IMAGES, Lab
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torch import Tensor

import kdbench
from kdbench.training.calibration import BINS, adaptive_calibration_error_pct, calibration_error_pct
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.predictions import Predictions, batch_predictions

Floats = npt.NDArray[np.float64]

N = 300


def reference(logits: Floats, labels: npt.NDArray[np.int64], teacher: Floats | None) -> dict[str, float]:
    """By other libraries the metrics that have a meaning; logits (N, K)."""
    p, classes = softmax(logits, axis=1), np.arange(logits.shape[1])
    predicted, confidence = p.argmax(1), p.max(1)
    right = (predicted == labels).astype(int)

    def gaps(strategy: str, edges: Floats) -> float:
        true, mean = calibration_curve(right, confidence, n_bins=BINS, strategy=strategy)
        images, _ = np.histogram(confidence, edges)
        return float(100 * np.average(abs(true - mean), weights=images[images > 0]))

    found = {
        "test_nll": log_loss(labels, p, labels=classes),
        "test_ece_pct": gaps("uniform", np.linspace(0, 1, BINS + 1)),
        "test_adaptive_ece_pct": gaps("quantile", np.percentile(confidence, np.linspace(0, 100, BINS + 1))),
    }
    if len(classes) >= 10:
        found["test_top5_error_pct"] = 100 * (1 - top_k_accuracy_score(labels, logits, k=5, labels=classes))
    if teacher is not None:
        found["teacher_agreement_pct"] = 100 * accuracy_score(teacher.argmax(1), predicted)
        found["teacher_kl"] = rel_entr(softmax(teacher, axis=1), p).sum(1).mean()
    return found


def measured(logits: Tensor, labels: Tensor, teacher: Tensor | None = None, *, batch: int = N) -> dict[str, Any]:
    found = [
        batch_predictions(logits[i : i + batch], labels[i : i + batch], None if teacher is None else teacher[i : i + batch])
        for i in range(0, len(labels), batch)
    ]
    return known(Predictions.joined(found).metrics(logits.shape[1]))


def known(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if value is not None}


def drawn(classes: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, K), labels (N,) that they often tell, and those of a teacher, which resemble them."""
    draws = torch.Generator().manual_seed(classes)
    logits = scale * torch.randn(N, classes, generator=draws)
    labels = torch.where(torch.rand(N, generator=draws) < 0.6, logits.argmax(1), torch.randint(classes, (N,), generator=draws))
    return logits, labels, logits + torch.randn(N, classes, generator=draws)


@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize("classes", [2, 9, 10, 100])
def test_metrics_are_those_of_other_libraries(classes: int, with_teacher: bool) -> None:
    logits, labels, teacher = drawn(classes)
    given = teacher if with_teacher else None
    expected = reference(logits.double().numpy(), labels.numpy(), teacher.double().numpy() if with_teacher else None)
    assert measured(logits, labels, given) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("levels", [None, 1])
def test_neither_batches_nor_the_order_of_images_change_a_bit(levels: int | None) -> None:
    """Nor where logits have three levels, so that many are equal, and many confidences too."""
    logits, labels, teacher = drawn(12)
    if levels:
        logits = logits.round().clamp(-levels, levels)
        assert len(np.unique(batch_predictions(logits, labels, None)["confidence"])) < N / 2
    whole = measured(logits, labels, teacher)
    assert measured(logits, labels, teacher, batch=7) == whole
    for seed in range(20):
        shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
        assert measured(logits[shuffled], labels[shuffled], teacher[shuffled]) == whole


def test_of_equal_logits_the_first_count() -> None:
    """As for the error: a constant answer is right for the first class, and among the five for the first five."""
    logits, labels = torch.zeros(12, 12), torch.arange(12)
    (found,) = [batch_predictions(logits, labels, logits)]
    assert found["in_top5"].tolist() == [True] * 5 + [False] * 7
    assert (found["predicted"] == 0).all() and found["agrees"].all()
    metrics = Predictions.joined([found]).metrics(12)
    assert metrics == {
        "test_top5_error_pct": 100 * 7 / 12,
        "test_nll": pytest.approx(np.log(12)),
        "test_ece_pct": pytest.approx(0, abs=1e-12),
        "test_adaptive_ece_pct": pytest.approx(0, abs=1e-12),  # though by the order of images the first bin would be all right
        "teacher_agreement_pct": 100.0,
        "teacher_kl": 0.0,
    }


def test_metrics_of_extreme_logits_are_finite() -> None:
    most = torch.finfo(torch.float32).max
    logits = torch.tensor([[most, -most], [-most, most], [200.0, 0.0], [0.0, 0.0]])
    metrics = measured(logits, torch.tensor([0, 0, 0, 1]), logits.flip(1))
    assert metrics["test_nll"] == pytest.approx(most / 2, rel=1e-6)
    assert metrics["teacher_agreement_pct"] == 25.0
    assert all(map(np.isfinite, metrics.values()))


def test_calibration_by_hand() -> None:
    """Bins hold their upper edge: 0.2 is in the third of fifteen, 0.2 and a bit in the fourth."""
    above = np.nextafter(0.2, 1)
    confidence = np.array([0.2, above, 1.0, 1.0])
    right = np.array([True, False, True, False])
    assert calibration_error_pct(confidence, right) == pytest.approx(100 * (0.8 + above + 1) / 4, rel=1e-15)
    assert calibration_error_pct(np.array([0.15, 0.2]), right[:2]) == pytest.approx(100 * 0.65 / 2), "one bin, one gap"
    assert adaptive_calibration_error_pct(confidence, right) == pytest.approx(100 * (0.8 + above + 0.5 + 0.5) / 4)
    one = np.full(30, 0.5)
    assert adaptive_calibration_error_pct(one, np.arange(30) < 15) == 0.0


def logits_of(lab: Lab, folder: Any, images: Tensor) -> Floats:
    with torch.no_grad():
        found: Floats = kdbench.load_student(folder)(images).double().numpy()
    return found


def test_a_record_measures_what_is_deployed(lab: Lab) -> None:
    """With SimKD's projector; the teacher's own trial and one that is used as it is have all but what compares with a teacher."""
    suite = lab.suite(keep_students=True, methods=["scratch", "kd", "simkd"])
    lab.run(suite)
    weights = str(lab.file(suite.teachers[0], "weights.safetensors"))
    adopting = lab.suite(pairs=[{"teacher": {"model": "wrn_10_1", "weights": weights}, "student": "resnet8"}], methods=["kd"])
    lab.run(adopting)
    data = lab.builder(suite).test_data
    images, labels = data.first(TEST_IMAGES), data.labels.numpy()
    teacher = logits_of(lab, lab.store.folder(suite.teachers[0].id), images)
    for trial in (*suite.trials, *suite.teachers, *adopting.teachers):
        logits = logits_of(lab, lab.store.folder(trial.id), images)
        expected = reference(logits, labels, teacher if trial.teacher else None)
        del expected["test_adaptive_ece_pct"]  # of 30 images scikit-learn makes other quantiles
        record = lab.record(trial)
        found = {name: getattr(record, name) for name in expected}
        assert found == pytest.approx(expected, rel=1e-4), trial.method  # students see the teacher with folded norms
        assert (record.teacher_kl is None) == (trial.teacher is None)
        assert record.test_adaptive_ece_pct == pytest.approx(
            adaptive_calibration_error_pct(np.exp(log_softmax(logits, axis=1).max(1)), logits.argmax(1) == labels), rel=1e-4
        )
        assert record.test_top5_error_pct is None, f"{CLASSES} classes"


def counting(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[object]:
    calls: list[object] = []
    original = getattr(owner, name)

    def count(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_only_the_last_test_looks_closer_and_the_teacher_answers_once_for_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs, one batch of test images, and a validation split that nobody looks at closer."""
    suite = lab.suite(methods=["scratch", "kd", "at", "sp"], recipe={"epochs": 3}, dataset={"validation": 0.25})
    lab.run(lab.suite(methods=["scratch"], recipe={"epochs": 3}, dataset={"validation": 0.25}))
    looks = counting(monkeypatch, __import__("kdbench.training.evaluation").training.evaluation, "batch_predictions")
    answers = counting(monkeypatch, FrozenTeacher, "logits")
    lab.run(suite)
    assert len(looks) == 1 + 1 + 3, "the teacher after its training, the same as the students see it, and each student"
    assert len(answers) == 1 + 1, "to be tested, and to be compared with"


def test_a_network_with_logits_of_no_class_is_refused(lab: Lab, register_network: Callable[..., None]) -> None:
    register_network("wide", lambda *, num_classes, in_channels: kdbench.build_model("resnet8", num_classes=7, in_channels=1))
    with pytest.raises(kdbench.KdbenchError, match=f"wide gives 7 logits for {CLASSES} classes. Build its last layer with"):
        lab.run(lab.suite(pairs=[{"teacher": "wrn_10_1", "student": "wide"}], methods=["at"]))
    assert not list(lab.store.records())
