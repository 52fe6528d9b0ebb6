"""Two workers on the CPU against one process with as many threads: `python tests/bench/workers.py --threads 2`.

Each repetition trains the students of a suite anew in a process of its own, `--engine here` and `--device cpu:N` by turns; the
start of the workers counts. The teacher and the first seed are trained once, before, so that the run knows how long jobs take.
Prints each time as it goes, and in the end one JSON object: seconds per repetition of both, and the ratio of their medians,
which is above 1 where the workers are faster. Two suites: `quick`, whose 8x8 images use one thread whatever there is, and 32x32
images of noise, three seeds of six methods from ResNet-20 to ResNet-8, which use all threads. On two quiet cores it takes about
ten minutes.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdbench.results.store import Store
from kdbench.runner.plan import Rerun
from kdbench.runner.progress import Silent
from kdbench.runner.run import Options, execute
from kdbench.spec.record import PROTOCOL
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite

SMALL = """
title: Noise of the size of CIFAR
dataset: {{name: imagefolder, label: noise, root: {root}, size: 32}}
recipe: {{epochs: {epochs}, batch_size: 128, optimiser: {{lr: 0.01}}, schedule: {{milestones: []}}}}
teacher: {{recipe: {{epochs: 1}}}}
seeds: [0, 1, 2]
methods: [scratch, kd, at, sp, pkt, dkd]
pairs: [{{teacher: resnet20, student: resnet8}}]
"""


def write_noise(root: Path, *, train: int, test: int) -> None:
    """A folder of images; what they show does not change how long they take."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for i in range(count):
            file = root / split / f"class{i % 10}" / f"{i:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)


def seconds(suite: str, results: Path, rerun: str, seeds: tuple[int, ...], options: Mapping[str, Any]) -> float:
    """How long a run takes, without its report."""
    load_shipped()
    loaded = load_suite(suite, seeds=seeds)
    began = time.perf_counter()
    store = Store(results, protocol=PROTOCOL)
    assert execute(loaded, store, options=Options(rerun=Rerun(rerun), **options), progress=Silent())
    return time.perf_counter() - began


def compare(suite: str, folder: Path, *, repeats: int, threads: int) -> dict[str, object]:
    """Seconds of both, by turns, each with a copy of a directory with the teacher and the first seed."""
    sides = {"here": {"engine": "here", "device": "cpu"}, f"cpu:{threads}": {"device": f"cpu:{threads}"}}

    def run(results: Path, rerun: str, seeds: tuple[int, ...], options: Mapping[str, Any]) -> float:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(seconds, suite, results, rerun, seeds, options).result()

    base, taken = folder / "before", {name: list[float]() for name in sides}
    run(base, "missing", (0,), sides["here"])
    for _ in range(repeats):
        for name, options in sides.items():
            results = Path(shutil.copytree(base, folder / "now"))
            taken[name].append(round(run(results, "all", (0, 1, 2), options), 2))
            print(f"{Path(suite).stem}, {name}: {taken[name][-1]} s", flush=True)
            shutil.rmtree(results)
    here, workers = map(statistics.median, taken.values())
    return {"seconds": taken, "times_faster": round(here / workers, 2)}


def main() -> None:
    """Measure both suites."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the one process, and how many workers")
    parser.add_argument("--images", type=int, default=1280, help="training images of 32x32")
    parser.add_argument("--epochs", type=int, default=1, help="of a student on them")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_noise(folder / "images", train=given.images, test=200)
        (folder / "noise.yaml").write_text(SMALL.format(root=folder / "images", epochs=given.epochs))
        found = {}
        for name, suite in (("quick, 8x8", "quick"), ("noise, 32x32", str(folder / "noise.yaml"))):
            (folder / name).mkdir()
            found[name] = compare(suite, folder / name, repeats=given.repeats, threads=given.threads)
    print(json.dumps({"threads": given.threads, "images": given.images, "epochs": given.epochs, **found}, indent=1))


if __name__ == "__main__":
    main()
