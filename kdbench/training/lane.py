"""A lane: one trial inside a cohort, with its own networks, optimiser, random streams and status.

Its steps are taken by a `Single`, or with those of other lanes by a `Block`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method.batch import Batch
from kdbench.method.composition import Composition
from kdbench.method.outputs import Outputs
from kdbench.streams import derive, generator, reseed
from kdbench.training.arithmetic import autocast
from kdbench.training.autograd import refuse_unoptimised
from kdbench.training.balance import gradient_norms
from kdbench.training.costs import Costs
from kdbench.training.deployed import Deployed
from kdbench.training.divergence import what_to_try
from kdbench.training.epoch_sums import EpochSums, Row
from kdbench.training.evaluation import Evaluation
from kdbench.training.finite import Finite
from kdbench.training.graphs import own_stream
from kdbench.training.inputs import StepInputs
from kdbench.training.modes import Modes
from kdbench.training.optimiser import set_rate
from kdbench.training.predictions import Predictions
from kdbench.training.recorded_batch import RecordedBatch
from kdbench.training.segments import MAIN, Position, Segment
from kdbench.training.step_graph import NotRecordable, StepGraph
from kdbench.training.step_losses import StepLosses, step_losses
from kdbench.training.weight_updates import WeightUpdates


class Lane:
    """Trains one student, or, with `student` None, what a stage learns from the teacher alone.

    Args:
        name: for logs.
        seed: derives the method's own streams.
        student: the network, on the device; None for a stage of the teacher alone.
        method: the composition, on the device.
        segments: what to train, in order.
        precision: as in the recipe.
        compiled: whether the student's passes are compiled.
        stacked_as: equal for lanes whose students are stacked, such as their architecture; None where this one is not.
        checkpoint: `(state) -> None`, called after every epoch but the last.

    Attributes:
        stream: of the graphs that it is part of, and of no other lane's.
        updates: move what the present segment trains.
        costs: seconds and memory.
        graph: of the step, on CUDA, in the present segment.
        graph_refused: why there can be none.
        predictions: what the student answers to each test image after its last epoch; None before that.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int | str,
        student: nn.Module | None,
        method: Composition,
        segments: list[Segment],
        precision: str,
        device: torch.device,
        compiled: bool = False,
        stacked_as: object = None,
        checkpoint: Callable[[Mapping[str, Any]], None] = lambda state: None,
    ) -> None:
        self.name = name
        self.seed = seed
        self.student = student
        self.method = method
        self.segments = segments
        self.precision = precision
        self.device = device
        self.compiled = compiled
        self.stacked_as = stacked_as
        self.checkpoint = checkpoint
        self.stream = own_stream(device, first=True)  # the teacher's pass has time until the next batch
        self.rows: list[Row] = []
        self.failure: str | None = None
        self.traceback, self._advice = "", ""
        self.predictions: Predictions | None = None
        self._fixed = {id(p) for network in self._networks for p in network.parameters() if not p.requires_grad}
        self._plain = [value for module in self.modules for value in vars(module).values() if isinstance(value, Tensor)]
        self._modes = Modes(student, method)
        self._finite = Finite({**method.parts, **({"the student": student} if student else {})})
        self._index = 0
        self._epoch = 0
        self._sums, self.costs = EpochSums(), Costs(device)
        self._enter()

    @property
    def position(self) -> Position | None:
        """Where the lane trains next; None when it is finished or has failed."""
        if self.failure or self._index == len(self.segments):
            return None
        return Position(self._segment.phase, self._segment.first + self._epoch)

    @property
    def _networks(self) -> list[nn.Module]:
        return [network for network in (self.student, self.method) if network is not None]

    def behind(self, phase: int) -> int:
        """How many epochs of a phase are behind it; all of them once it has ended or failed."""
        whole = sum(segment.epochs for segment in self.segments if segment.phase == phase)
        now = self.position
        if now is None or phase < now.phase:
            return whole
        return now.epoch if phase == now.phase else 0

    @property
    def _segment(self) -> Segment:
        return self.segments[self._index]

    @property
    def _now(self) -> str:
        """The epoch, for messages."""
        return f"epoch {self._epoch + 1} of stage {self._segment.name}"

    def _enter(self) -> None:
        """Begin the current segment."""
        self.graph: StepGraph | None = None
        self.graph_refused: str | None = None
        self.updates = WeightUpdates(self._segment, self.student, self.method, fixed=self._fixed, device=self.device)

    def begin_epoch(self, *, steps: int = 1) -> None:
        """Set the modes and the streams of the coming epoch, which has so many steps."""
        self._steps, self._step = steps, 0
        self._stream = derive(self.seed, "method", self._segment.name, self._epoch)
        self._generator = generator(self._stream)
        if self.graph and self.graph.of_one_epoch:
            self.graph = None
        self._sums.begin(keep_tensors=self.graph is not None)
        self.costs.begin_epoch()
        self._row: Row = {}
        self._modes.set_for(self._segment.modules)

    @property
    def at_first_step(self) -> bool:
        """Whether the coming step is the first of its epoch."""
        return self._sums.images == 0

    def begin_step(self) -> None:
        """Set the global random streams and the learning rate of the coming step."""
        reseed(derive(self._stream, self._sums.images), self.device)
        by_step = self._segment.schedule.update == "step"
        if by_step or self._step == 0:
            self._lr = self._segment.rate(self._epoch + by_step * self._step / self._steps)
            set_rate(self.updates.optimiser, self._lr)
        self._step += 1

    def end_step(self, images: int) -> None:
        """Count the images of a step."""
        self._sums.images += images

    @property
    def peak_mem_mib(self) -> float:
        """The lane's own on CUDA: its networks, their average, momentum, graph, and the most that an ordinary step took beside.

        On the CPU it is the whole process's.
        """
        own = (*self.method.state_dict().values(), *(self.student.state_dict().values() if self.student else ()))
        return self.costs.peak_mem_mib(held=sum(tensor.nbytes for tensor in own) + self.updates.held_bytes)

    @property
    def extra_params(self) -> int:
        """How many parameters are learnt beside those of the network that would be deployed."""
        kept = self._fixed | set(map(id, self.method.deployed()))
        return sum(parameter.numel() for parameter in self.method.parameters() if id(parameter) not in kept)

    def batch(self, inputs: StepInputs) -> Batch:
        """The batch as the method is given it."""
        return Batch(
            inputs.images,
            inputs.labels,
            inputs.indices,
            self._epoch,
            self._segment.epochs,
            self._generator,
            inputs.soft_labels,
            {name: inputs.views[name] for name in self.method.views},
            self._segment.label_smoothing,
        )

    def losses(self, outputs: Outputs, teacher: Outputs | None, batch: Batch, *, first: bool) -> StepLosses:
        """What a step minimises, given the student's outputs; `first` of all steps sees that it teaches nothing by mistake."""
        with autocast(self.device, precision=self.precision):
            losses = step_losses(self._segment, self.method, outputs, teacher or outputs, batch)
        if first and self._epoch == 0:
            refuse_unoptimised(losses.total, self.updates.optimiser, self._plain, stage=self._segment.name)
        return losses

    def backward(self, losses: StepLosses, at: Sequence[Tensor], *, balance: bool) -> Sequence[Tensor | None]:
        """Go backward; with `balance` give the cross-entropy's gradients at some tensors, if there are terms to hold against it."""
        self.updates.optimiser.zero_grad(set_to_none=True)
        g_ce: Sequence[Tensor | None] = ()
        if balance and losses.terms and at and losses.ce is not None and losses.ce.requires_grad:
            with self.costs.watch.paused():  # the balance is ours to know, not a cost of the method
                g_ce = torch.autograd.grad(losses.ce, at, retain_graph=True, allow_unused=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        return g_ce

    def apply(self, losses: StepLosses, g_ce: Sequence[Tensor | None]) -> None:
        """Take the step of the optimiser that the gradients ask for; `g_ce` are the cross-entropy's at what the student learns."""
        if g_ce:
            with self.costs.watch.paused():
                self._sums.balance = gradient_norms(self.updates.learnt, g_ce, included=bool(losses.ce_weight))
        self.updates.step()
        self._sums.add(losses)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Leave the lane as it was where the block finds out that its step cannot be recorded."""
        moments = self.updates.optimiser.state
        drawn, sums, moved = self._generator.get_state(), list(self._sums.tensors), set(moments)
        try:
            yield
        except NotRecordable:
            self._generator.set_state(drawn)
            self._sums.tensors = {name: self._sums.tensors[name] for name in sums}
            for parameter in moments.keys() - moved:
                del moments[parameter]
            raise

    def fill(self, batch: RecordedBatch) -> None:
        """Begin a step that a graph takes, which reads this batch."""
        self.begin_step()
        batch.fill(self._generator, self._epoch)

    @property
    def modules(self) -> list[nn.Module]:
        """Those of the student and of the method, with all inside them."""
        return [module for network in self._networks for module in network.modules()]

    def tensors(self) -> dict[str, Tensor]:
        """All that a step changes."""
        found = {f"sum of {name}": value for name, value in self._sums.tensors.items()}
        for network in self._networks:
            found |= {f"{type(network).__name__}.{name}": value for name, value in network.named_parameters()}
            found |= {f"{type(network).__name__}.{name}": value for name, value in network.named_buffers()}
        return found | self.updates.tensors()

    @property
    def in_main(self) -> bool:
        """Whether a student is in its main training, where it is tested after every epoch."""
        return self.student is not None and self._segment.phase == MAIN

    def predictor(self) -> Deployed:
        """Images (B, C, H, W) to logits (B, K), in evaluation mode."""
        assert self.student is not None
        return Deployed(self.student, Composition(self.method.predicting)).eval()

    def sum_up(self, *, data_s: float, teacher_s: float, startup_s: float) -> None:
        """Write the epoch's row; a loss, or anything learnt, that is no longer finite fails the lane."""
        row = self._sums.row(
            own_s=self.costs.watch.take(),
            data_s=data_s,
            teacher_s=teacher_s if self.method.reads_teacher else 0.0,
            startup_s=self.costs.startup_s + (startup_s if self.method.reads_teacher else 0.0),
        )
        if not math.isfinite(loss := row["train_loss"]):
            bad = [name for name, mean in row["terms"].items() if not math.isfinite(mean)]
            began = [name for name in bad if name in self._sums.first and not self._sums.first[name].isfinite()]
            self._diverged(f"the loss is {loss} in {self._now} (terms: {', '.join(began or bad)})", began or bad)
            return
        if broken := self._finite.broken((*self._segment.modules, *self.method.predicting.values())):
            self._diverged(f"not finite after {self._now}: {broken}")
            return
        self._row = {"stage": self._segment.name, "epoch": self._epoch + 1, "lr": self._lr, **row}

    def _diverged(self, reason: str, terms: Sequence[str] = ()) -> None:
        self.fail(reason, advice=what_to_try(self.method, self._segment, terms))

    @property
    def own_s(self) -> float:
        """Seconds of its own steps in the epoch that was summed up."""
        return float(self._row["train_s"] - self._row["data_s"] - self._row["teacher_s"])

    def enter_elapsed(self, part: float) -> None:
        """Enter into the epoch's row that so much of its seconds passed."""
        self._row["elapsed_s"] = part * self._row["train_s"]

    def add_evaluation(self, key: str, found: Evaluation, *, seconds: float) -> None:
        """Enter an error into the epoch's row, and what it cost; an answer that is not finite fails the lane."""
        if found.not_finite:
            images = f"{found.not_finite} of {found.images} {key.removesuffix('_error_pct')} images"
            self._diverged(f"the logits of {images} are not finite after {self._now}")
            return
        self._row[key] = found.error_pct
        self.predictions = found.predictions or self.predictions
        self._row["evaluation_s"] = self._row.get("evaluation_s", 0.0) + seconds

    def end_epoch(self) -> None:
        """Keep the epoch's row, move on and checkpoint."""
        self.rows.append(self._row)
        self._advance()
        if self.position:
            self.checkpoint(self.state())

    def _advance(self) -> None:
        self._epoch += 1
        if self._epoch == self._segment.epochs:
            self._index, self._epoch = self._index + 1, 0
            self.updates.finish()
            if self._index < len(self.segments):
                self._enter()

    def fail(self, reason: str, *, traceback: str = "", advice: str = "") -> None:
        """Take the lane out of the cohort; the others go on. Where an exception is the reason, its traceback tells more."""
        self.failure, self.traceback, self._advice = reason, traceback, advice

    @property
    def failure_with_advice(self) -> str:
        """Why the lane failed and, where something can be said of it, what to try."""
        return f"{self.failure}; {self._advice}" if self._advice else str(self.failure)

    def state(self) -> dict[str, Any]:
        """Everything that the coming epochs depend on."""
        return {
            "index": self._index,
            "epoch": self._epoch,
            "student": self.student.state_dict() if self.student else {},
            "method": self.method.state_dict(),
            **self.updates.state(),
            "rows": self.rows,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._index, self._epoch, self.rows = state["index"], state["epoch"], list(state["rows"])
        if self.student:
            self.student.load_state_dict(state["student"])
        self.method.load_state_dict(state["method"])
        self._enter()
        self.updates.restore(state)
