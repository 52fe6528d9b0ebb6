"""What an evaluation finds out about a network: what it gets wrong, whether it answers in numbers, and how fast it is.

Whatever a network draws at random in evaluation comes from streams that depend on the place of the batch alone, so that an
evaluation is a function of the network and of the images.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench.data import Loader
from kdbench.data.loader import LoadPlainBatch
from kdbench.streams import derive, reseed
from kdbench.training.arithmetic import arranged, autocast
from kdbench.training.finite import NotFinite
from kdbench.training.predictions import Predictions, batch_predictions
from kdbench.training.waiting import Waiting
from kdbench.training.watches import Stopwatch

Predict = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to logits (B, K)."""

TEST = "test_error_pct"
"""The key under which a row of curves has the error on the test images."""


@dataclass(frozen=True)
class Evaluation:
    """How a network did.

    Attributes:
        images: how many it was shown.
        wrong: how many of them it got wrong.
        not_finite: for how many a logit was NaN or infinite, so that it gave no answer at all.
        predictions: what it answered to each image, where that was asked for.
    """

    images: int
    wrong: int
    not_finite: int
    predictions: Predictions | None = None

    @property
    def error_pct(self) -> float:
        """Percent of the images that it got wrong."""
        return 100 * self.wrong / self.images


class Evaluator:
    """An evaluation under way. It counts on the device, so that nothing waits for a batch.

    With `detailed` it keeps what the network answers to each image: about 40 bytes for one.
    """

    def __init__(self, predict: Predict, device: torch.device, *, precision: str, detailed: bool = False) -> None:
        self._predict = predict
        self._precision = precision
        self._detailed = detailed
        self._images = 0
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        self._batches: list[dict[str, Tensor]] = []

    def update(self, load: LoadPlainBatch, teacher_logits: Tensor | None = None) -> Tensor:
        """Show it the next batch, of which a detailed one may know the teacher's logits (B, K); returns its own."""
        images, labels = load()
        reseed(derive(0, "examination", self._images), images.device)
        with torch.no_grad():
            with autocast(images.device, precision=self._precision):
                logits = self._predict(arranged(images, precision=self._precision))
            self._counts += torch.stack(((logits.argmax(1) != labels).sum(), (~logits.isfinite().all(1)).sum()))
            if self._detailed:
                self._batches.append(batch_predictions(logits, labels, teacher_logits))
        self._images += len(labels)
        return logits

    def compute(self) -> Evaluation:
        """What came of it; the host waits for the device."""
        predictions = Predictions.joined(self._batches) if self._detailed else None
        wrong, not_finite = self._counts.tolist()
        return Evaluation(self._images, wrong, not_finite, predictions)


def evaluate(
    predict: Predict, data: Loader, *, precision: str, detailed: bool = False, waiting: Waiting | None = None
) -> Evaluation:
    """How `predict` does on `data`, not augmented; with `detailed`, on each image of it.

    Call it inside a block of `waiting.for_device`, where `waiting` is given.

    Raises:
        NotFinite: a logit is NaN or infinite.
    """
    evaluator = Evaluator(predict, data.device, precision=precision, detailed=detailed)
    for load in (waiting or Waiting()).items(data.plain_batches()):
        evaluator.update(load)
    found = evaluator.compute()
    if found.not_finite:
        raise NotFinite(f"the logits of {found.not_finite} of {found.images} test images are not finite")
    return found


def error_pct(predict: Predict, data: Loader, *, precision: str) -> float:
    """Percent of `data`, not augmented, that `predict` gets wrong.

    Raises:
        NotFinite: a logit is NaN or infinite.
    """
    return evaluate(predict, data, precision=precision).error_pct


def repeats(passed: Callable[[Tensor], Sequence[Tensor]], images: Tensor, *, seeds: tuple[int, int], precision: str) -> bool:
    """Whether two passes over the same images give the same tensors, NaN for NaN, with the random streams at the two seeds."""
    found = []
    with torch.no_grad(), autocast(images.device, precision=precision):
        for seed in seeds:
            reseed(seed, images.device)
            found.append([tensor.clone() for tensor in passed(arranged(images, precision=precision))])
    return all(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True) for one, other in zip(*found, strict=True))


TIMED_PASSES = 5


def inference_images_per_s(predict: Predict, images: Tensor, *, precision: str) -> float:
    """Median rate of `TIMED_PASSES` forward passes over one batch, after one to warm up."""
    watch = Stopwatch(images.device)
    rates, images = [], arranged(images, precision=precision)
    with torch.no_grad(), autocast(images.device, precision=precision):
        for _ in range(1 + TIMED_PASSES):
            reseed(derive(0, "examination", 0), images.device)
            watch.start()
            predict(images)
            watch.stop()
            rates.append(len(images) / watch.take())
    return statistics.median(rates[1:])


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """The buffers of a network are after the block what they were before it: an evaluation teaches nothing."""
    kept = [(module, name, buffer) for module in network.modules() for name, buffer in module.named_buffers(recurse=False)]
    values = [buffer.clone() for _, _, buffer in kept]
    try:
        yield
    finally:
        for (module, name, buffer), value in zip(kept, values, strict=True):
            setattr(module, name, buffer.copy_(value))  # in its place, which a CUDA graph knows
