"""On the CPU, the seven-method row against the plain loop, alternating, medians: `python tests/bench/row.py --images 640`.

Prints one JSON object: seconds per repetition of both sides, the ratios of their medians, and what evaluation after every epoch
would cost. Same images, batch size, augmentation, arithmetic and number of threads on both sides; the plain loop at the best of the
given numbers of workers. bf16 and compilation are on our side alone. `--ladder` shows what each lever gives, `--wide` what the same
twenty methods take in one row and in rows of seven. What a GPU does is in `gpu.py`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from ladder import RUNGS, loop_seconds
from plain import PilImages, best_of_the_field, train_epoch

from kdbench.data import UNAUGMENTED, Dataset, SourceParams, Split
from kdbench.method.specs import resolve_methods
from kdbench.models import Network
from kdbench.spec.recipe import SGD, Recipe
from kdbench.spec.trial import DatasetSpec, TrialSpec
from kdbench.suite.plugins import load_shipped
from kdbench.training.arithmetic import arranged
from kdbench.training.builder import Builder
from kdbench.training.cohort import train_in_lockstep
from kdbench.training.device import environment, exact
from kdbench.training.evaluation import error_pct
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.lane import Lane
from kdbench.training.segments import MAIN, segments
from kdbench.training.stream import Stream

ROW = ("scratch", "kd", "fitnets_hint", "at", "ft", "at+kd", "ft+kd")
WIDE = (
    *ROW,
    *("kd_standardized", "dkd", "dist", "ft_repdistiller", "nst", "sp", "cc", "rkd", "pkt", "vid", "ofd", "reviewkd", "simkd"),
)
LEVERS = {"compiled": {"compile": True}, "stacked": {"stack": True}}
"""What is no precision of a recipe and changes its arithmetic all the same; it concerns training alone."""

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def noise(n: int) -> Split:
    """Images of the size of CIFAR's; what they show does not change how long they take."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Split(images, torch.randint(10, (n,), generator=generator))


def trials(methods: list[str], *, teacher: str, student: str, recipe: Recipe) -> list[TrialSpec]:
    data = DatasetSpec(name="noise", params={"label": "", "train_images": 0, "validation": 0})
    scratch = TrialSpec(dataset=data, recipe=recipe, student=teacher, methods=resolve_methods("scratch", {}), seed=0)
    found = []
    for name in methods:
        parts = resolve_methods(name, {})
        found.append(TrialSpec(dataset=data, recipe=recipe, student=student, methods=parts, seed=0, teacher=scratch))
    return found


def trained(builder: Builder, name: str, recipe: Recipe) -> Network:
    """A teacher that knows the range of its maps, as a trained one does; else they grow block by block, and losses to inf."""
    network = builder.network(name, precision=recipe.precision).train()
    with torch.no_grad():
        for draw in builder.training_data(UNAUGMENTED).epoch(torch.Generator().manual_seed(0), batch_size=128):
            network(arranged(draw()[0], precision=recipe.precision))
    return network


def lockstep(builder: Builder, specs: list[TrialSpec], teacher: FrozenTeacher) -> float:
    """Seconds of one epoch of all lanes, evaluation and start-up left out."""
    recipe, lanes = specs[0].recipe, []
    for spec in specs:
        method = builder.composition(spec, teacher.network.teacher_parts())
        student = builder.student(spec)
        main = [segment for segment in segments(method, student, recipe) if segment.phase == MAIN]
        lanes.append(
            Lane(
                spec.method,
                seed=0,
                student=student,
                method=method,
                segments=main,
                precision=recipe.precision,
                compiled=recipe.compile,
                stacked_as=spec.student if recipe.stack else None,
                device=builder.device,
            )
        )
    stream = Stream(builder.training_data(recipe.augmentation), recipe, 0, builder.dataset.num_classes)
    began = time.perf_counter()
    train_in_lockstep(
        lanes,
        stream,
        teachers=[teacher],
        evaluation={},
        stop=lambda: False,
        epoch_done=lambda now, active: None,
    )
    seconds = time.perf_counter() - began
    assert all(lane.failure is None for lane in lanes), [lane.failure for lane in lanes]
    return seconds


def passes_seconds(builder: Builder, specs: list[TrialSpec], teacher: FrozenTeacher) -> float:
    """Seconds of the passes alone, one of the teacher for all and one forward and backward of each student: the floor of a CPU."""
    recipe, data = specs[0].recipe, builder.training_data(specs[0].recipe.augmentation)
    draws = list(data.epoch(torch.Generator().manual_seed(0), batch_size=recipe.batch_size))
    batches = [(arranged(images, precision=recipe.precision), labels) for images, labels, *_ in (draw() for draw in draws)]
    students = [builder.student(spec).train() for spec in specs]
    began = time.perf_counter()
    for images, labels in batches:
        teacher(images)
        for student in students:
            torch.autograd.backward(torch.nn.functional.cross_entropy(student(images).logits, labels))
    return time.perf_counter() - began


def plain_seconds(builder: Builder, specs: list[TrialSpec], *, workers: int) -> float:
    """Seconds of one epoch of every method in the plain loop."""
    load_shipped()
    total, layout = 0.0, torch.contiguous_format
    taught_by, split = specs[0].teacher, builder.dataset.train
    assert taught_by and isinstance(split, Split)
    teacher = builder.network(taught_by.student).to(memory_format=layout)
    images = PilImages(split, MEAN, STD)
    with best_of_the_field(builder.device):
        for spec in specs:
            student = builder.student(spec).to(memory_format=layout)
            method = builder.composition(spec, teacher.teacher_parts())
            total += train_epoch(student, teacher, method, images, batch_size=128, workers=workers, device=builder.device)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--methods", nargs="+", default=list(ROW))
    parser.add_argument(
        "--arithmetic", nargs="+", choices=["default", "fp32", "tf32", "bf16", "compiled", "stacked"], default=["fp32", "bf16"]
    )
    parser.add_argument("--ladder", action="store_true", help="the rungs between, too")
    parser.add_argument("--wide", action="store_true", help="twenty methods, in one row and in rows of seven, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_shipped()
    device = torch.device("cpu")
    split = noise(options.images)
    builder = Builder(Dataset(split, noise(1000), tuple("0123456789"), MEAN, STD), SourceParams(), device)
    shape = builder.dataset.image_shape
    # On noise, some methods diverge at the usual 0.1.
    recipe = Recipe(epochs=1, batch_size=128, optimiser=SGD(lr=0.001), precision="fp32")
    specs = trials(options.methods, teacher=options.teacher, student=options.student, recipe=recipe)

    def ours(arithmetic: str, specs: list[TrialSpec]) -> Callable[[], float]:
        own = recipe.model_copy(update=LEVERS.get(arithmetic, {"precision": arithmetic}))
        changed = [spec.model_copy(update={"recipe": own}) for spec in specs]
        teacher = FrozenTeacher(trained(builder, options.teacher, own), image_shape=shape, recipe=own, device=device)

        def seconds() -> float:
            with exact(device, precision=own.precision, image_shape=shape):
                return lockstep(builder, changed, teacher)

        return seconds

    def floor() -> float:
        with exact(device, precision="fp32", image_shape=shape):
            teacher = FrozenTeacher(trained(builder, options.teacher, recipe), image_shape=shape, recipe=recipe, device=device)
            return passes_seconds(builder, specs, teacher)

    def evaluation(precision: str) -> float:
        student = builder.student(specs[0]).eval()
        with exact(device, precision=precision, image_shape=shape):
            began = time.perf_counter()
            error_pct(lambda batch: student(batch).logits, builder.test_data, precision=precision)
            return time.perf_counter() - began

    # What kdbench sets for its process must not help the plain loop: that has a process of its own, and a builder without images on
    # the device, which could not be sent.
    elsewhere = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(options.threads,)
    )

    def there(seconds: Callable[..., float], *given: Any, **named: Any) -> Callable[[], float]:
        return lambda: elsewhere.submit(seconds, replace(builder), specs, *given, **named).result()

    sides = {f"plain loop, {n} workers": there(plain_seconds, workers=n) for n in options.workers}
    if options.ladder:
        sides |= {name: there(loop_seconds, levers) for name, levers in RUNGS.items()}
    sides |= {f"kdbench, {arithmetic}": ours(arithmetic, specs) for arithmetic in options.arithmetic}
    if options.wide:
        wide = trials(list(WIDE), teacher=options.teacher, student=options.student, recipe=recipe)
        sides["kdbench, fp32, twenty methods"] = ours("fp32", wide)
        rows = [ours("fp32", wide[first : first + len(ROW)]) for first in range(0, len(wide), len(ROW))]
        sides["kdbench, fp32, twenty methods in rows of seven"] = lambda: sum(row() for row in rows)
    sides["the passes alone"] = floor
    sides |= {f"evaluation of 1,000 images, {name}": partial(evaluation, name) for name in options.arithmetic if name not in LEVERS}

    def timed(name: str) -> float:
        found = sides[name]()
        print(f"{name}: {found:.3f} s", file=sys.stderr, flush=True)  # a run that is cut off has told what it measured
        return found

    startup = {name: timed(name) for name in sides if not name.startswith("evaluation")}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, found in seconds.items():
            found.append(timed(name))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    best = min(median for name, median in medians.items() if name.startswith("plain"))
    result = {
        "methods": options.methods,
        "pair": f"{options.teacher} -> {options.student}",
        "images": options.images,
        "batch": recipe.batch_size,
        "environment": environment(device).model_dump(),
        "seconds of the first repetition, not counted": startup,
        "seconds": seconds,
        "times faster than the plain loop": {name: best / median for name, median in medians.items()},
        "seconds of one method": {
            name: median / (len(WIDE) if "twenty" in name else len(specs))
            for name, median in medians.items()
            if name.startswith("kdbench")
        },
        "evaluation after every epoch of 50,000 images, percent of it": {
            name: 100
            * 10_000
            * medians[f"evaluation of 1,000 images, {name}"]
            / 1000
            * len(specs)
            / (50_000 * medians[f"kdbench, {name}"] / options.images)
            for name in options.arithmetic
            if name not in LEVERS
        },
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
