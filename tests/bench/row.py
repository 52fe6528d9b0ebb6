"""The seven-method row against the plain loop, alternating, medians: `python tests/bench/row.py --images 1280 --repeats 3`.

Prints one JSON object: seconds per repetition of both sides, their medians and the ratio. Same images, batch size, augmentation,
arithmetic and number of threads on both sides; the plain loop at the best of the given numbers of workers.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from plain import PilImages, train_epoch

from kdbench.data import Dataset, SourceParams, Split
from kdbench.plugins import load_shipped
from kdbench.recipe import SGD, Recipe
from kdbench.training.bench import Bench
from kdbench.training.cohort import FrozenTeacher, Stream, records_graphs, train_in_lockstep
from kdbench.training.device import choose_device, environment, exact
from kdbench.training.lane import MAIN, Lane, segments
from kdbench.trial import DatasetSpec, TrialSpec, resolve_methods

ROW = ("scratch", "kd", "fitnets_hint", "at", "ft", "at+kd", "ft+kd")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def noise(n: int) -> Split:
    """Images of the size of CIFAR's; what they show does not change how long they take."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Split(images, torch.randint(10, (n,), generator=generator))


def trials(methods: list[str], *, teacher: str, student: str, recipe: Recipe) -> list[TrialSpec]:
    data = DatasetSpec(name="noise", params={"label": "", "train_images": 0})
    scratch = TrialSpec(dataset=data, recipe=recipe, student=teacher, methods=resolve_methods("scratch", {}), seed=0)
    found = []
    for name in methods:
        parts = resolve_methods(name, {})
        found.append(TrialSpec(dataset=data, recipe=recipe, student=student, methods=parts, seed=0, teacher=scratch))
    return found


def lockstep_seconds(bench: Bench, specs: list[TrialSpec], teacher: FrozenTeacher) -> float:
    """Seconds of one epoch of all lanes, evaluation left out as in the plain loop."""
    import time

    recipe = specs[0].recipe
    lanes = []
    for spec in specs:
        method = bench.composition(spec, teacher.network.teacher_parts())
        student = bench.student(spec)
        main = [segment for segment in segments(method, student, recipe) if segment.phase == MAIN]
        lanes.append(
            Lane(
                spec.method,
                seed=0,
                student=student,
                method=method,
                segments=main,
                precision=recipe.precision,
                device=bench.device,
            )
        )
    stream = Stream(bench.training_data(recipe.augmentation), recipe, 0)
    began = time.perf_counter()
    train_in_lockstep(
        lanes,
        stream,
        teacher=teacher,
        evaluation={},
        stop=lambda: False,
        epoch_done=lambda now, active: None,
        graphs=records_graphs(stream.data.device),
    )
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    assert all(lane.failure is None for lane in lanes), [lane.failure for lane in lanes]
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--methods", nargs="+", default=list(ROW))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_shipped()
    device = choose_device(options.device)
    split = noise(options.images)
    dataset = Dataset(split, noise(128), tuple("0123456789"), MEAN, STD)
    recipe = Recipe(epochs=1, batch_size=128, optimiser=SGD(lr=0.1), precision=options.precision)
    specs = trials(options.methods, teacher=options.teacher, student=options.student, recipe=recipe)
    bench = Bench(dataset, SourceParams(), device)
    teacher = FrozenTeacher(bench.network(options.teacher), image_shape=dataset.image_shape, recipe=recipe, device=device)
    plain_teacher = bench.network(options.teacher).to(memory_format=torch.contiguous_format)
    pil = PilImages(split, MEAN, STD)

    def plain_seconds(workers: int) -> float:
        total = 0.0
        for spec in specs:
            student = bench.student(spec).to(memory_format=torch.contiguous_format)
            method = bench.composition(spec, plain_teacher.teacher_parts())
            total += train_epoch(student, plain_teacher, method, pil, batch_size=128, workers=workers)
        return total

    with exact(device, precision=options.precision, image_shape=dataset.image_shape):
        ours: list[float] = []
        plain: dict[int, list[float]] = {workers: [] for workers in options.workers}
        for _ in range(options.repeats):
            ours.append(lockstep_seconds(bench, specs, teacher))
            for workers in options.workers:
                plain[workers].append(plain_seconds(workers))
        ran_on = environment(device).model_dump()
    best = min(plain, key=lambda workers: statistics.median(plain[workers]))
    result = {
        "methods": options.methods,
        "pair": f"{options.teacher} -> {options.student}",
        "images": options.images,
        "precision": options.precision,
        "environment": ran_on,
        "lockstep_s": ours,
        "plain_s": plain,
        "plain_workers": best,
        "ratio": statistics.median(plain[best]) / statistics.median(ours),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
