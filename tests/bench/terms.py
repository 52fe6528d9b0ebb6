"""What the term of each method costs beside its network, in numbers that need no GPU: `python tests/bench/terms.py nst rkd`.

For ResNet-56 -> ResNet-20 on images of CIFAR's size in batches of 128, one step of the main training of each method, without the
teacher's pass, less one of `scratch`: operations that compute something (on a GPU one kernel each, or a few), floating-point
operations, and bytes that operations write. Then the largest tensor of the step in MiB, and the step's processor time on one
thread against that of `scratch`, medians of `--repeats`, alternating. Prints a line of JSON for each method. Without names it takes
all methods of the registry that this pair can have.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from operations import FREE, Operations
from row import MEAN, STD, noise, trials
from torch.utils.flop_counter import FlopCounterMode

from kdbench.data import Dataset, SourceParams
from kdbench.method.interface import METHODS
from kdbench.method.pair import PairError
from kdbench.spec.recipe import SGD, Recipe
from kdbench.suite.plugins import load_shipped
from kdbench.training.builder import Builder
from kdbench.training.device import exact
from kdbench.training.frozen_teacher import FrozenTeacher, ask
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.segments import MAIN, Position, segments
from kdbench.training.single import Single
from kdbench.training.stream import Stream

CPU, SHAPE, BATCH = torch.device("cpu"), (3, 32, 32), 128
RECIPE = Recipe(epochs=2, batch_size=BATCH, optimiser=SGD(lr=1e-3), precision="fp32")

WRITE_NOTHING = FREE | {"alias", "empty_like", "empty_strided", "as_strided", "split", "unbind"}
"""Operations that no kernel is for."""


@dataclass(frozen=True)
class Cost:
    """Of one step.

    Attributes:
        operations: that compute something.
        written: bytes that they write.
        largest: bytes of the largest tensor among these.
        flops: multiplications and additions.
    """

    operations: int
    written: int
    largest: int
    flops: int


class Step:
    """A step of a method's main training, as often as it is called."""

    def __init__(self, name: str, builder: Builder, teacher: FrozenTeacher) -> None:
        several = METHODS.get(name).several_teachers
        (spec,) = trials([name], teacher="resnet56", student="resnet20", recipe=RECIPE)
        spec = spec.model_copy(update={"other_teachers": spec.teachers * several})
        method, network = builder.composition(spec, teacher.network.teacher_parts()), builder.student(spec)
        main = [segment for segment in segments(method, network, RECIPE) if segment.phase == MAIN]
        lane = Lane(name, seed=0, student=network, method=method, segments=main, precision="fp32", device=CPU)
        stream, views = Stream(builder.training_data(RECIPE.augmentation), RECIPE, 0, 10), tuple(method.views)
        batch = next(stream.batches(Position(MAIN, 0), views))()
        teachers = [teacher] * (1 + several)
        self._inputs: StepInputs = batch.taught(ask(teachers, batch, views) if method.reads_teacher else None)
        lane.begin_epoch()
        self._unit = Single(lane)
        self()  # it measures the balance of the losses, and goes backward twice

    def __call__(self) -> float:
        """Seconds of the processor that it took, which others that compute beside it change less than seconds of the clock."""
        began = time.process_time()
        self._unit.train_step(self._inputs)
        return time.process_time() - began

    def cost(self) -> Cost:
        """Of one more."""
        with FlopCounterMode(display=False) as flops, Operations(WRITE_NOTHING) as operations:
            self()
        sizes = [size for _, size in operations.written]
        return Cost(len(sizes), sum(sizes), max(sizes), flops.get_total_flops())


def main() -> None:
    """Measure the methods that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    load_shipped()
    torch.set_num_threads(1)
    split = noise(50_000)  # so many images some methods remember
    builder = Builder(Dataset(split, split, tuple("0123456789"), MEAN, STD), SourceParams(), CPU)
    with exact(CPU, precision="fp32", image_shape=SHAPE):
        torch.set_num_threads(1)
        teacher = FrozenTeacher(builder.network("resnet56"), image_shape=SHAPE, recipe=RECIPE, device=CPU)
        scratch = Step("scratch", builder, teacher)
        none = scratch.cost()
        for name in given.methods or METHODS.names():
            try:
                step = Step(name, builder, teacher)
            except PairError as reason:
                print(json.dumps({"method": name, "left_out": str(reason)}), flush=True)
                continue
            cost = step.cost()
            pairs = [(step(), scratch()) for _ in range(given.repeats)]
            ratio = statistics.median(own for own, _ in pairs) / statistics.median(other for _, other in pairs)
            figures = {
                "operations": cost.operations - none.operations,
                "written_mb": round((cost.written - none.written) / 1e6, 1),
                "gflop": round((cost.flops - none.flops) / 1e9, 2),
                "largest_mib": round(cost.largest / 2**20, 1),
                "cpu_ratio": round(ratio, 2),
            }
            print(json.dumps({"method": name, **figures}), flush=True)


if __name__ == "__main__":
    main()
