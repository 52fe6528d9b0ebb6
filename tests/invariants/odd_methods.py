"""Methods and networks that draw random numbers, raise or diverge, for the tests of the engine."""

import random

import numpy as np
import torch
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, Stage
from kdbench.models import Network, build_model


class WithDropout(Network):
    """resnet8 with dropout before its classifier, which has two names, as in a wrapper around a foreign network."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
        self.classifier = self.body.classifier

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        logits = self.classifier(nn.functional.dropout(out.pooled, 0.5, self.training))
        return Outputs(logits, out.stem, out.features, out.preactivations, out.pooled)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.body.group_norms()


class Noisy(WithDropout):
    """Draws in evaluation, too: dropout that is never off, a layer that is left out now and then, and noise."""

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        pooled = nn.functional.dropout(out.pooled, 0.3) * (1.0 if random.random() < 0.7 else 0.5)
        logits = self.classifier(pooled) + float(np.random.normal(scale=0.1))
        return Outputs(logits, out.stem, out.features, out.preactivations, pooled)


class Careless(Method):
    """Draws from the global streams, torch's, Python's and NumPy's: when it is built, in its stages and in the main training."""

    reads = ("pooled",)
    teacher_stages = {"dream": ()}
    noise: Tensor

    def build(self, pair: Pair) -> None:
        self.dreamer = nn.Linear(pair.teacher.pooled[0], 3)
        self.adapter = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])
        self.register_buffer("noise", self.draw(torch.zeros(pair.teacher.pooled)))

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("dream", 2, self.dream, (self.dreamer,), trains_student=False),
            Stage("warm", 1, self.losses, (), trains_student=True),
        )

    def draw(self, like: Tensor) -> Tensor:
        return torch.rand_like(like) * random.random() * float(np.random.rand())

    def dream(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        dream = self.dreamer(teacher.pooled)
        return {"dream": (dream - self.draw(dream) - torch.rand((), generator=batch.generator)).square().mean()}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        gap = self.adapter(student.pooled) - teacher.pooled
        weight = self.draw(gap) * self.noise + self.dreamer(teacher.pooled).mean()
        return {"gap": (gap * weight).square().mean()}


class Faulty(Method):
    """Raises on purpose, or diverges, at the place that `at` names."""

    reads = ("logits",)
    teacher_stages = {"lesson": ("at",)}

    class Params(MethodParams):
        at: str = ""

    def break_at(self, place: str) -> None:
        if self.params.at == place:
            raise RuntimeError(f"on purpose in {place}")

    def nan_at(self, place: str) -> float:
        return float("nan") if self.params.at == place else 1

    def build(self, pair: Pair) -> None:
        self.break_at("build")
        if pair.student == pair.teacher:
            self.break_at("build for equal networks")
        self.lesson_adapter, self.hint_adapter = nn.Linear(3, 3), nn.Linear(3, 3)

    def stages(self) -> tuple[Stage, ...]:
        self.break_at("stages")
        return (
            Stage("lesson", 1, self.lesson, (self.lesson_adapter,), trains_student=False),
            Stage("hint", 1, self.hint, (self.hint_adapter,), trains_student=True),
        )

    def lesson(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.break_at("lesson")
        return {"lesson": self.lesson_adapter(teacher.logits).square().mean() * self.nan_at("nan in lesson")}

    def hint(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.break_at("hint")
        return {"hint": self.hint_adapter(student.logits).square().mean() * self.nan_at("nan in hint")}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if batch.epoch == 1:
            self.break_at("losses")
        factor = self.nan_at("nan in main") if batch.epoch == 1 else 1
        return {"main": (student.logits - teacher.logits).square().mean() * factor}

    def predict(self, student: Outputs) -> Tensor:
        self.break_at("predict")
        if not self.training:
            self.break_at("predict in evaluation")
        return student.logits
