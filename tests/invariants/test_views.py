"""Views and surveys: asked for by one method, they change nobody else; the teacher is asked once for all who ask."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSES, TRAIN_IMAGES, Lab, Rehearsed
from safetensors.torch import load_file
from torch import Tensor, nn

from invariants.probes import give_teacher, only
from kdbench import Batch, KdbenchError, Losses, Method, MethodParams, Outputs, Pair, Survey
from kdbench.data.views import mixup, rotations
from kdbench.method.interface import METHODS
from kdbench.models.weights import read_checkpoint
from kdbench.training.frozen_teacher import FrozenTeacher

VIEWS = ("strong", "rotations", "mixup")


class Viewer(Method):
    """Learns from all views."""

    reads = ("logits",)
    views = VIEWS

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        gaps = {name: F.mse_loss(student.views[name].logits, teacher.views[name].logits) for name in VIEWS}
        return gaps | {"ce": F.cross_entropy(student.views["mixup"].logits, batch.views["mixup"].labels)}


class StrongAlone(Method):
    """Learns from the strong view, without a teacher."""

    views = ("strong",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"ce": F.cross_entropy(student.views["strong"].logits, batch.views["strong"].labels)}


class Means(nn.Module):
    """Sums of vectors by class."""

    sums: Tensor
    counts: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(CLASSES, width))
        self.register_buffer("counts", torch.zeros(CLASSES))


class Centred(Method):
    """Draws students' vectors to the teacher's mean vectors of the classes; breaks on purpose."""

    reads = ("pooled",)
    teacher_surveys = {"means": ("broken",)}

    class Params(MethodParams):
        beta: float = 1.0
        broken: bool = False

    def build(self, pair: Pair) -> None:
        self.means = Means(pair.teacher.pooled[0])
        self.embed = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])

    def see(self, teacher: Outputs, labels: Tensor) -> None:
        assert not self.params.broken, "broken on purpose"
        self.means.sums.index_add_(0, labels, teacher.pooled)
        self.means.counts += torch.bincount(labels, minlength=CLASSES)

    def surveys(self) -> tuple[Survey, ...]:
        return (Survey("means", self.means, self.see, finish=lambda: self.means.sums.div_(self.means.counts[:, None])),)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": self.params.beta * F.mse_loss(self.embed(student.pooled), self.means.sums[batch.labels])}


OTHERS = ["scratch", "kd", "at"]
ASKING = ["viewer", "strong_alone", "centred", "viewer+centred"]


@pytest.fixture(scope="module", autouse=True)
def _methods() -> Iterator[None]:
    restore = METHODS.snapshot()
    for name, method in {"viewer": Viewer, "strong_alone": StrongAlone, "centred": Centred}.items():
        METHODS.register(name)(method)
    yield
    restore()


@pytest.fixture(scope="module")
def nobody_asks(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("nobody"), images)
    lab.run(lab.suite(methods=OTHERS))
    return lab


@pytest.fixture(scope="module")
def together(images: Path, tmp_path_factory: pytest.TempPathFactory, nobody_asks: Lab) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("together"), images)
    suite = lab.suite(methods=[*OTHERS, *ASKING])
    give_teacher(lab, nobody_asks, suite)
    lab.run(suite)
    assert [lab.record(trial).reason for trial in suite.trials] == [None] * 7
    return lab


def test_views_and_surveys_change_nobody_else(nobody_asks: Lab, together: Lab) -> None:
    expected, found = nobody_asks.outcomes(), together.outcomes()
    assert {trial: found[trial] for trial in expected} == expected


@pytest.mark.parametrize("name", ["strong_alone", "viewer+centred"])
def test_alone_and_stopped_after_every_epoch_as_beside_all_others(
    name: str, nobody_asks: Lab, together: Lab, lab: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    """The teacher is copied without what was found out about it, so that the survey is made anew."""
    suite = lab.suite(methods=[name])
    give_teacher(lab, nobody_asks, suite)
    assert [lab.run(suite, **one_epoch_a_run) for _ in range(2)] == [False, True]
    mine = only(suite, name).id
    assert lab.outcomes()[mine] == together.outcomes()[mine]


def test_graphs_do_what_steps_do(rehearsed: None, nobody_asks: Lab, together: Lab, lab: Lab) -> None:
    suite = lab.suite(methods=[*OTHERS, *ASKING])
    give_teacher(lab, nobody_asks, suite)
    lab.run(suite)
    assert Rehearsed.made > len(suite.trials)
    assert lab.outcomes() == together.outcomes()


def test_the_teacher_sees_each_view_once_for_all_who_ask(nobody_asks: Lab, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = lab.suite(methods=[*OTHERS, "viewer", "viewer+at"])
    give_teacher(lab, nobody_asks, suite)
    seen: Counter[int] = Counter()
    asked = FrozenTeacher.__call__

    def count(teacher: FrozenTeacher, images: Tensor) -> Outputs:
        seen[len(images)] += 1
        return asked(teacher, images)

    lab.builder(suite)
    monkeypatch.setattr("kdbench.runner.teachers.repeats", lambda *args, **options: True)  # which asks it, too
    monkeypatch.setattr(FrozenTeacher, "__call__", count)
    lab.run(suite)
    # Two epochs of batches of 32, 32 and 8 images: themselves, strong and mixed; and three times as many that are turned.
    assert seen == {32: 2 * 2 * 3, 8: 2 * 3, 96: 2 * 2, 24: 2}


def test_a_survey_sees_every_training_image_once_as_it_is(lab: Lab) -> None:
    suite = lab.suite(methods=["centred", {"centred": {"beta": 2.0}}, {"centred": {"broken": True}}])
    lab.run(suite)
    (teacher,) = suite.teachers
    files = list((lab.store.folder(teacher.id) / "stages").glob("*"))
    assert len(files) == 1, "two methods that differ in what it does not depend on share it"
    found = read_checkpoint(files[0])
    assert found
    (kept,) = found["modules"]
    data = lab.builder(suite)
    network = data.restored(teacher, load_file(lab.file(teacher, "weights.safetensors"))).eval()
    images, labels = next(iter(data.surveyed_data.plain_batches()))()
    assert len(labels) == TRAIN_IMAGES
    with torch.no_grad():
        pooled = network(images).pooled
    by_hand = torch.stack([pooled[labels == label].mean(0) for label in range(CLASSES)])
    torch.testing.assert_close(kept["sums"], by_hand, rtol=1e-4, atol=1e-5)
    reasons = [lab.record(trial).reason for trial in suite.trials]
    assert reasons[:2] == [None, None] and "broken on purpose" in (reasons[2] or "")


def test_turned_images_and_their_labels() -> None:
    images, labels = torch.randn(2, 3, 4, 4), torch.tensor([5, 7])
    view = rotations(images, labels)
    assert view.labels.tolist() == [5, 5, 5, 7, 7, 7]
    for image in range(2):
        for turns in (1, 2, 3):
            assert torch.equal(view.images[3 * image + turns - 1], torch.rot90(images[image], turns, (1, 2)))


def test_mixed_images_and_their_shares() -> None:
    images, labels = torch.eye(6).view(6, 1, 1, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    view = mixup(images, labels, num_classes=4, generator=torch.Generator().manual_seed(1))
    assert view.labels.shape == (6, 4) and torch.allclose(view.labels.sum(1), torch.ones(6))
    by_class = view.images.flatten(1) @ F.one_hot(labels, 4).float()
    torch.testing.assert_close(by_class, view.labels)


def test_a_view_and_a_survey_that_do_not_exist_are_told_when_the_class_is_made() -> None:
    with pytest.raises(KdbenchError, match=r"strnog in `views` is no view. Choose from strong, rotations, mixup"):
        type("Odd", (Viewer,), {"views": ("strnog",)})
    with pytest.raises(KdbenchError, match=r"survey means depends on gamma in `teacher_surveys`"):
        type("Odd", (Centred,), {"teacher_surveys": {"means": ("gamma",)}})
    with pytest.raises(KdbenchError, match=r"it learns from the teacher before the training, and `reads` names nothing"):
        type("Odd", (Centred,), {"reads": ()})
