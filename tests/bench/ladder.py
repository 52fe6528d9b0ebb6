"""From the plain loop to kdbench, one lever at a time: `python tests/bench/ladder.py --images 640 --repeats 3`.

Each rung keeps the levers of the rungs before it. All rungs alternate in one process, on the same images, batches of 128 and
arithmetic; the plain loop has the best of the given numbers of workers. Prints one JSON object with the seconds of every
repetition.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from plain import PilImages, train_epoch
from row import MEAN, ROW, STD, lockstep_seconds, noise, trials
from torch import nn

from kdbench import Batch
from kdbench.data import Dataset, SourceParams, batch_bounds, epoch_plan
from kdbench.models.folding import folded
from kdbench.plugins import load_shipped
from kdbench.recipe import SGD, Recipe
from kdbench.training.bench import Bench
from kdbench.training.cohort import FrozenTeacher
from kdbench.training.device import choose_device, environment, exact
from kdbench.trial import TrialSpec

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Levers:
    """What a loop over images on the device does better than the plain one."""

    waits: bool = True
    shared: bool = False
    channels_last: bool = False
    folded: bool = False
    fused: bool = False


RUNGS = {
    "images on the device": Levers(),
    "no `.item()` in the step": Levers(waits=False),
    "channels last": Levers(waits=False, channels_last=True),
    "folded teacher": Levers(waits=False, channels_last=True, folded=True),
    "fused SGD": Levers(waits=False, channels_last=True, folded=True, fused=True),
    "one teacher for all": Levers(waits=False, channels_last=True, folded=True, fused=True, shared=True),
}


def loop_seconds(bench: Bench, specs: list[TrialSpec], levers: Levers) -> float:
    """Seconds of one epoch of every method."""
    recipe = specs[0].recipe
    layout = torch.channels_last if levers.channels_last else torch.contiguous_format
    original = bench.network(specs[0].teacher.student).eval()
    teacher: nn.Module = folded(original, image_shape=SHAPE)[0] if levers.folded else original
    teacher = teacher.to(memory_format=layout)
    lanes = []
    for spec in specs:
        student = bench.student(spec).to(memory_format=layout).train()
        method = bench.composition(spec, original.teacher_parts())
        parameters = [*student.parameters(), *method.parameters()]
        options = {"fused": True} if levers.fused else {}
        lanes.append((student, method, torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, **options)))
    data = bench.training_data(recipe.augmentation)
    plan = epoch_plan(len(data), recipe.augmentation, torch.Generator()).to(bench.device)
    began = time.perf_counter()
    for group in [lanes] if levers.shared else [[lane] for lane in lanes]:
        total = 0.0
        for start, end in batch_bounds(len(data), recipe.batch_size):
            images, labels, indices = data.batch(plan, start, end)
            images = images.contiguous(memory_format=layout)
            target = None
            if any(method.reads_teacher for _, method, _ in group):
                with torch.no_grad():
                    target = teacher(images)
            for student, method, optimiser in group:
                output = student(images)
                batch = Batch(images, labels, indices, 0, 1, torch.Generator())
                terms = method.losses(output, target or output, batch)
                loss = sum(terms.values(), torch.zeros((), device=bench.device))
                if method.ce_weight:
                    loss = loss + method.ce_weight * F.cross_entropy(method.predict(output), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item() if levers.waits else 0.0
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--methods", nargs="+", default=list(ROW))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_shipped()
    device = choose_device(options.device)
    split = noise(options.images)
    bench = Bench(Dataset(split, noise(128), tuple("0123456789"), MEAN, STD), SourceParams(), device)
    recipe = Recipe(epochs=1, batch_size=128, optimiser=SGD(lr=0.1))
    specs = trials(options.methods, teacher="resnet56", student="resnet20", recipe=recipe)
    images = PilImages(split, MEAN, STD)
    contiguous = torch.contiguous_format
    plain_teacher = bench.network("resnet56").to(memory_format=contiguous)

    def plain(workers: int) -> float:
        total = 0.0
        for spec in specs:
            student = bench.student(spec).to(memory_format=contiguous)
            method = bench.composition(spec, plain_teacher.teacher_parts())
            total += train_epoch(student, plain_teacher, method, images, batch_size=128, workers=workers)
        return total

    def kdbench(**changes: object) -> Callable[[], float]:
        own = recipe.model_copy(update=changes)
        teacher = FrozenTeacher(bench.network("resnet56"), image_shape=SHAPE, recipe=own, device=device)
        changed = [spec.model_copy(update={"recipe": own}) for spec in specs]
        return lambda: lockstep_seconds(bench, changed, teacher)

    rungs: dict[str, Callable[[], float]] = {f"plain loop, {n} workers": lambda n=n: plain(n) for n in options.workers}
    rungs |= {name: lambda levers=levers: loop_seconds(bench, specs, levers) for name, levers in RUNGS.items()}
    rungs |= {"kdbench": kdbench(), "kdbench, bf16": kdbench(precision="bf16")}
    seconds: dict[str, list[float]] = {name: [] for name in rungs}
    with exact(device, precision="fp32", image_shape=SHAPE):
        for _ in range(options.repeats):
            for name, rung in rungs.items():
                seconds[name].append(rung())
        ran_on = environment(device).model_dump()
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    best = min(median for name, median in medians.items() if name.startswith("plain"))
    result = {
        "methods": options.methods,
        "pair": "resnet56 -> resnet20",
        "images": options.images,
        "environment": ran_on,
        "seconds": seconds,
        "times faster than the plain loop": {name: best / median for name, median in medians.items()},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
