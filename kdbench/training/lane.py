"""A lane: one trial inside a cohort, with its own networks, optimiser, random streams and status."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method.batch import Batch
from kdbench.method.composition import Composition, checked
from kdbench.method.outputs import Outputs
from kdbench.streams import derive, generator, reseed
from kdbench.training.arithmetic import autocast
from kdbench.training.autograd import refuse_unoptimised
from kdbench.training.balance import gradient_norms
from kdbench.training.compiled import Compiled
from kdbench.training.deployed import Deployed
from kdbench.training.device import MemoryWatch, Stopwatch, process_mem_mib, random_states
from kdbench.training.epoch_sums import UNUSED, EpochSums, Row
from kdbench.training.evaluation import Evaluation
from kdbench.training.finite import Finite
from kdbench.training.graphs import GraphInputs, NotRecordable, StepGraph, own_stream
from kdbench.training.inputs import StepInputs, outputs_of
from kdbench.training.modes import Modes
from kdbench.training.moving_average import MovingAverage
from kdbench.training.optimiser import build_optimiser, restore_optimiser, set_rate
from kdbench.training.predictions import Predictions
from kdbench.training.recorded_batch import RecordedBatch
from kdbench.training.segments import MAIN, Position, Segment
from kdbench.training.step_losses import StepLosses


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
        self.stacked_as = stacked_as
        self.checkpoint = checkpoint
        self.rows: list[Row] = []
        self.failure: str | None = None
        self.traceback = ""
        self.predictions: Predictions | None = None
        self._fixed = {id(p) for network in self._networks for p in network.parameters() if not p.requires_grad}
        self._plain = [value for module in self.modules for value in vars(module).values() if isinstance(value, Tensor)]
        self._modes = Modes(student, method)
        self._finite = Finite({**method.parts, **({"the student": student} if student else {})})
        self._compiled = Compiled(student) if student and compiled else None
        self._step_watch, self._memory = Stopwatch(device), MemoryWatch(device)
        self._stream_of_graphs, self._graph_bytes = own_stream(device), 0
        self._index = 0
        self._epoch = 0
        self._sums = EpochSums()
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

    @property
    def reads_teacher(self) -> bool:
        """Whether it needs the teacher's forward pass."""
        return self.method.reads_teacher

    @property
    def main_epochs(self) -> int:
        """How many epochs the main training has."""
        return self.segments[-1].epochs

    @property
    def epochs_left(self) -> int:
        """How many epochs of the main training are to come, or were lost by a failure."""
        if self._index == len(self.segments):
            return 0
        return self.main_epochs if self._index < len(self.segments) - 1 else self.main_epochs - self._epoch

    @property
    def _segment(self) -> Segment:
        return self.segments[self._index]

    @property
    def _now(self) -> str:
        """The epoch, for messages."""
        return f"epoch {self._epoch + 1} of stage {self._segment.name}"

    def _enter(self) -> None:
        """Begin the current segment: thaw and optimise what it trains, freeze the rest."""
        self.graph: StepGraph | None = None
        self.graph_refused: str | None = None
        for network in self._networks:
            network.requires_grad_(False)
        segment = self._segment
        self._optimiser = build_optimiser(segment.optimiser, segment.trained, fixed=self._fixed, device=self.device)
        averaged = (module for module in (self.student, *self.method.predicting.values()) if module)
        self._average = MovingAverage(averaged, decay=segment.moving_average) if segment.moving_average else None

    def begin_epoch(self, *, steps: int = 1) -> None:
        """Set the modes and the streams of the coming epoch, which has so many steps."""
        self._steps, self._step = steps, 0
        self._stream = derive(self.seed, "method", self._segment.name, self._epoch)
        self._generator = generator(self._stream)
        if self.graph and self.graph.of_one_epoch:
            self.graph = None
        self._sums.begin(keep_tensors=self.graph is not None)
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
            set_rate(self._optimiser, self._lr)
        self._step += 1

    def end_step(self, images: int) -> None:
        """Count the images of a step."""
        self._sums.images += images

    def prepare(self, inputs: StepInputs) -> None:
        """Compile for batches like this one, where that was not done before."""
        if self._compiled:
            with autocast(self.device, precision=self.precision):
                views = (inputs.views[name].images for name in self.method.views)
                self._sums.startup_s += sum(map(self._compiled.prepare, (inputs.images, *views)))

    def step(self, inputs: StepInputs) -> None:
        """One step of the optimiser on a batch."""
        self.prepare(inputs)
        self._step_watch.start()
        self._memory.start()
        before = self.momentum_bytes
        self.begin_step()
        self._update(self.batch(inputs), inputs.teacher, first=self.at_first_step)
        self.end_step(len(inputs))
        self._memory.stop(stays=self.momentum_bytes - before)
        self._step_watch.stop()
        if self.graph and self.graph.outdated:  # such as by a weight that the method has changed in this step
            self.graph = None

    @property
    def peak_mem_mib(self) -> float:
        """The lane's own on CUDA: its networks, their average, momentum, graph, and the most that an ordinary step took beside.

        On the CPU it is the whole process's.
        """
        if self.device.type != "cuda":
            return process_mem_mib()
        own = (*self.method.state_dict().values(), *(self.student.state_dict().values() if self.student else ()))
        held: int = sum(tensor.nbytes for tensor in (*own, *self._momentum, *(self._average.tensors if self._average else ())))
        return (held + self._graph_bytes + self._memory.most) / 2**20

    @property
    def extra_params(self) -> int:
        """How many parameters are learnt beside those of the network that would be deployed."""
        kept = self._fixed | set(map(id, self.method.deployed()))
        return sum(parameter.numel() for parameter in self.method.parameters() if id(parameter) not in kept)

    @property
    def _momentum(self) -> list[Tensor]:
        """What the optimiser remembers; nothing before its first step."""
        return [value for state in self._optimiser.state.values() for value in state.values() if isinstance(value, Tensor)]

    @property
    def momentum_bytes(self) -> int:
        """The memory of what the optimiser remembers."""
        return sum(tensor.nbytes for tensor in self._momentum)

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

    def _outputs(self, batch: Batch) -> Outputs | None:
        """The student's for a batch and for the views that the method asks for, each in a pass of its own."""
        forward = self._compiled or self.student
        return None if forward is None else outputs_of(forward, batch)

    def _update(self, batch: Batch, teacher: Outputs | None, *, first: bool) -> None:
        """All of a step that happens on the device; `first` of an epoch measures the loss balance."""
        with autocast(self.device, precision=self.precision):
            outputs = self._outputs(batch) or teacher
            assert outputs is not None, "a stage of the teacher alone is given the teacher's outputs"
            losses = self.losses(outputs, teacher, batch, first=first)
        self.apply(losses, self.backward(losses, self.learnt, balance=first))

    def losses(self, outputs: Outputs, teacher: Outputs | None, batch: Batch, *, first: bool) -> StepLosses:
        """What a step minimises, given the student's outputs; `first` of all steps sees that it teaches nothing by mistake."""
        segment, labels = self._segment, batch.labels
        with autocast(self.device, precision=self.precision):
            terms = dict(checked(segment.losses(outputs, teacher or outputs, batch)))
            total = sum(terms.values(), torch.zeros((), device=self.device))
            ce, ce_weight = None, 0.0
            if segment.phase == MAIN:
                ce_weight = self.method.ce_weight  # the losses may have set it
                logits = self.method.predict(outputs)
                self._sums.add("wrong", (logits.detach().argmax(1) != labels).sum())
                # Of no weight it is not trained on, and the terms are held against it all the same.
                ce = (ce_weight or 1.0) * batch.cross_entropy(logits)
                if ce_weight:
                    total = total + ce
        if first and self._epoch == 0:
            refuse_unoptimised(total, self._optimiser, self._plain, stage=segment.name)
        return StepLosses(total, terms, ce, ce_weight, len(labels))

    def backward(self, losses: StepLosses, at: Sequence[Tensor], *, balance: bool) -> Sequence[Tensor | None]:
        """Go backward; with `balance` give the cross-entropy's gradients at some tensors, if there are terms to hold against it."""
        self._optimiser.zero_grad(set_to_none=True)
        g_ce: Sequence[Tensor | None] = ()
        if balance and losses.terms and at and losses.ce is not None and losses.ce.requires_grad:
            with self._step_watch.paused():  # the balance is ours to know, not a cost of the method
                g_ce = torch.autograd.grad(losses.ce, at, retain_graph=True, allow_unused=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        return g_ce

    def apply(self, losses: StepLosses, g_ce: Sequence[Tensor | None]) -> None:
        """Take the step of the optimiser that the gradients ask for; `g_ce` are the cross-entropy's at what the student learns."""
        if g_ce:
            with self._step_watch.paused():
                self._sums.balance = gradient_norms(self.learnt, g_ce, included=bool(losses.ce_weight))
        if clipping := self._segment.gradient_clipping:
            trained = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, clipping, foreach=True)
        self._optimiser.step()
        if self._average:
            self._average.update()
        self._sums.add("loss", losses.total.detach() * losses.images)
        for name, term in losses.terms.items():
            self._sums.add(name, term.detach() * losses.images)
        if losses.ce is not None:
            self._sums.add("cross_entropy" if losses.ce_weight else UNUSED, losses.ce.detach() * losses.images)

    def record_step(self, inputs: GraphInputs) -> None:
        """Make a graph of the coming steps on full batches; `graph_refused` says why where there can be none."""
        try:
            with self.recorded():
                graph = StepGraph(
                    lambda batches: self._update(batches[0], inputs.teacher, first=False),
                    [self.batch(inputs.batch)],
                    tensors=self.tensors,
                    modules=self.modules,
                    stream=self._stream_of_graphs,
                    draws=lambda: random_states(self.device),
                )
        except NotRecordable as reason:
            self.graph_refused = str(reason)
        else:
            self.take_graph(graph, share=1)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Leave the lane as it was where the block finds out that its step cannot be recorded."""
        drawn, sums, moved = self._generator.get_state(), list(self._sums.tensors), set(self._optimiser.state)
        try:
            yield
        except NotRecordable:
            self._generator.set_state(drawn)
            self._sums.tensors = {name: self._sums.tensors[name] for name in sums}
            for parameter in self._optimiser.state.keys() - moved:
                del self._optimiser.state[parameter]
            raise

    def take_graph(self, graph: StepGraph, *, share: float) -> None:
        """Let the coming steps be a graph, of whose costs a share is the lane's."""
        self.graph = graph
        self._sums.startup_s += share * graph.startup_s
        self._graph_bytes = max(self._graph_bytes, int(share * graph.held_bytes))

    def launch_step(self, images: int) -> None:
        """One step on a full batch of so many images, by the graph, on a stream of its own; `join_step` waits for it."""
        assert self.graph is not None
        self.fill(self.graph.batches[0])
        self.graph.graph.launch()
        self.count_replayed(images, seconds=self.graph.seconds)

    def fill(self, batch: RecordedBatch) -> None:
        """Begin a step that a graph takes, which reads this batch."""
        self.begin_step()
        batch.fill(self._generator, self._epoch)

    def count_replayed(self, images: int, *, seconds: float) -> None:
        """Enter a step that a graph has taken."""
        self.end_step(images)
        self._sums.replayed_s += seconds

    def add_common(self, *, seconds: float, memory: float) -> None:
        """Enter the lane's share of what it computed together with others: its time, and the most memory that it took in bytes."""
        self._sums.common_s += seconds
        self._memory.most = max(self._memory.most, int(memory))

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What happens in the block counts as the lane's own."""
        self._step_watch.start()
        yield
        self._step_watch.stop()

    def join_step(self) -> None:
        """Let the device's current stream go on when the launched step is done."""
        assert self.graph is not None
        self.graph.graph.join()

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
        found |= {f"momentum {i}": value for i, value in enumerate(self._momentum)}
        found |= {f"average {i}": value for i, value in enumerate(self._average.tensors if self._average else ())}
        return found

    @property
    def learnt(self) -> list[nn.Parameter]:
        """What the student learns now."""
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad] if self.student else []

    @property
    def in_main(self) -> bool:
        """Whether a student is in its main training, where it is tested after every epoch."""
        return self.student is not None and self._segment.phase == MAIN

    def predictor(self) -> Deployed:
        """Images (B, C, H, W) to logits (B, K), in evaluation mode."""
        assert self.student is not None
        return Deployed(self.student, Composition(self.method.predicting)).eval()

    def as_tested(self) -> AbstractContextManager[None]:
        """Inside the block its networks are as they are tested: with the moving average of their weights, where there is one."""
        return self._average.in_place() if self._average else nullcontext()

    def sum_up(self, *, data_s: float, teacher_s: float, startup_s: float) -> None:
        """Write the epoch's row; a loss, or anything learnt, that is no longer finite fails the lane."""
        row = self._sums.row(
            own_s=self._step_watch.take() + self._sums.replayed_s + self._sums.common_s,
            data_s=data_s,
            teacher_s=teacher_s if self.reads_teacher else 0.0,
            startup_s=startup_s if self.reads_teacher else 0.0,
        )
        if not math.isfinite(loss := row["train_loss"]):
            bad = [name for name, mean in row["terms"].items() if not math.isfinite(mean)]
            self.fail(f"the loss is {loss} in {self._now} (terms: {', '.join(bad)})")
            return
        if broken := self._finite.broken((*self._segment.modules, *self.method.predicting.values())):
            self.fail(f"not finite after {self._now}: {broken}")
            return
        self._row = {"stage": self._segment.name, "epoch": self._epoch + 1, "lr": self._lr, **row}

    def add_evaluation(self, key: str, found: Evaluation, *, seconds: float) -> None:
        """Enter an error into the epoch's row, and what it cost; an answer that is not finite fails the lane."""
        if found.not_finite:
            images = f"{found.not_finite} of {found.images} {key.removesuffix('_error_pct')} images"
            self.fail(f"the logits of {images} are not finite after {self._now}")
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
            if self._average:
                self._average.adopt()
            if self._index < len(self.segments):
                self._enter()

    def fail(self, reason: str, *, traceback: str = "") -> None:
        """Take the lane out of the cohort; the others go on. Where an exception is the reason, its traceback tells more."""
        self.failure, self.traceback = reason, traceback

    def state(self) -> dict[str, Any]:
        """Everything that the coming epochs depend on."""
        return {
            "index": self._index,
            "epoch": self._epoch,
            "student": self.student.state_dict() if self.student else {},
            "method": self.method.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.tensors if self._average else [],
            "rows": self.rows,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._index, self._epoch, self.rows = state["index"], state["epoch"], list(state["rows"])
        if self.student:
            self.student.load_state_dict(state["student"])
        self.method.load_state_dict(state["method"])
        self._enter()
        restore_optimiser(self._optimiser, state["optimiser"])
        if self._average:
            self._average.restore(state["average"])
