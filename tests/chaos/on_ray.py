"""Runs of a small suite on a Ray cluster that loses processes and nodes at random: `python tests/chaos/on_ray.py --runs 30`.

The cluster is a real one on this machine: a head without work, and two nodes with a CPU each. A node that is killed is replaced
later, or not before the run's end. Drivers are the command line, as a user starts it. What must hold is what `run.py` asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import torch
from conftest import Lab, write_images
from ray.cluster_utils import Cluster
from run import SUITE, Broken, Run, children, kill

NODES = 2
NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}


def processes(name: str) -> list[int]:
    """Those whose command line has the name in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if name.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@dataclass(eq=False)
class OnRay(Run):
    """A run whose drivers send their jobs to a cluster."""

    slowest_s: float = 600.0
    cluster: Any = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def drive(self, harm: object = None) -> int:
        suite = self.lab.write(**SUITE, seeds=[*range(self.seeds)])
        command = [sys.executable, "-m", "kdbench", "run", str(suite), "--results", str(self.lab.store.root)]
        with (self.lab.root / "driver.txt").open("ab") as log:
            self.started.append(
                subprocess.Popen(
                    [*command, "--engine", "ray", "--address", self.cluster.address, "--device", "cpu:1"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return self.started[-1].pid

    def whole(self) -> None:
        """Give the cluster its nodes again."""
        while len(self.cluster.worker_nodes) < NODES:
            self.cluster.add_node(**NODE)

    def see_no_process(self) -> None:
        until = time.monotonic() + 60
        while left := processes("ray::RayWorker"):
            if time.monotonic() > until:
                raise Broken(f"workers are left over: {left}")
            time.sleep(0.1)


def kills_training(run: OnRay, dice: random.Random) -> None:
    """A process that trains, below an actor."""
    driver = run.drive()
    run.sleep(dice)
    found = [child for actor in processes("ray::RayWorker") for child in children(actor)]
    for process in dice.sample(found, min(1, len(found))):
        kill(process)
    run.ended(driver)


def kills_an_actor(run: OnRay, dice: random.Random) -> None:
    driver = run.drive()
    run.sleep(dice)
    found = processes("ray::RayWorker")
    for process in dice.sample(found, min(1, len(found))):
        kill(process)
    run.ended(driver)


def kills_a_node(run: OnRay, dice: random.Random) -> None:
    driver = run.drive()
    run.sleep(dice)
    run.cluster.remove_node(dice.choice([*run.cluster.worker_nodes]), allow_graceful=False)
    if dice.random() < 0.7:
        run.sleep(dice)
        run.whole()
    run.ended(driver)
    run.whole()


def kills_the_driver(run: OnRay, dice: random.Random) -> None:
    driver = run.drive()
    run.sleep(dice)
    kill(driver)
    run.ended(driver)


def stops_the_driver(run: OnRay, dice: random.Random) -> None:
    driver = run.drive()
    run.sleep(dice)
    for _ in range(dice.choice((1, 1, 2))):
        kill(driver, signal.SIGTERM)
        time.sleep(dice.uniform(0, 0.5))
    run.ended(driver)


def starts_two(run: OnRay, dice: random.Random) -> None:
    """The second is refused."""
    first = run.drive()
    time.sleep(dice.uniform(0, run.span_s / 2))
    if 0 not in (ended := run.ended(first, run.drive())):
        raise Broken(f"of two drivers none came to the end: {ended}")


HARMS = {
    "a training process killed": kills_training,
    "an actor killed": kills_an_actor,
    "a node killed": kills_a_node,
    "the driver killed": kills_the_driver,
    "SIGTERM": stops_the_driver,
    "two drivers": starts_two,
}


def one_run(run: OnRay, seed: int, expected: Any) -> list[str]:
    """Disturb a run once or twice, and let it end; the harms that were done.

    Raises:
        Broken: it did not come out as it must.
    """
    dice = random.Random(seed)
    names = [dice.choice(list(HARMS)) for _ in range(dice.choice((1, 2)))]
    try:
        for name in names:
            run.told.append(name)
            HARMS[name](run, dice)
        run.told.append("undisturbed")
        if (status := run.ended(run.drive())) != [0]:
            raise Broken(f"left alone, the driver ended with {status}")
        run.see(expected)
    except Broken as problem:
        for process in run.started:
            kill(process.pid)
        (run.lab.root / "told.txt").write_text("\n".join([*run.told, str(problem)]))
        raise
    finally:
        run.whole()
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next run has the next one")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no further run begins")
    given = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    images = write_images(root / "stripes")
    os.environ |= {"XDG_CACHE_HOME": str(root / "cache"), "RAY_worker_niceness": "0"}
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    failed: list[int] = []
    counts: Counter[str] = Counter()
    runs, until = 0, time.monotonic() + 60 * given.minutes
    try:
        alone = Lab(root / "alone", images)
        alone.root.mkdir()
        assert alone.run(alone.suite(**SUITE, seeds=[0]))
        expected = alone.outcomes()
        span_s = 30.0
        for number in range(-1, given.runs):
            if time.monotonic() > until:
                break
            seed, folder = given.seed + number, root / f"run{given.seed + number}"
            folder.mkdir()
            run = OnRay(Lab(folder, images), "ray", span_s, False, [], seeds=1, cluster=cluster)
            run.whole()
            began = time.monotonic()
            if number < 0:
                assert run.ended(run.drive()) == [0]
                run.see(expected)
                span_s = time.monotonic() - began
                print(f"undisturbed: {len(expected)} trials, {span_s:.1f} s on {NODES} nodes; in {root}", flush=True)
                continue
            runs += 1
            try:
                names = one_run(run, seed, expected)
            except Broken as problem:
                failed.append(seed)
                print(f"FAILED, seed {seed}: {problem}. See {folder}.", flush=True)
                continue
            counts.update(names)
            shutil.rmtree(folder)
            print(f"seed {seed}: {', '.join(names)}: as undisturbed ({time.monotonic() - began:.1f} s)", flush=True)
    finally:
        cluster.shutdown()
    print(json.dumps({"runs": runs, "engine": "ray", "failed": failed, "harms": counts, "trials of a run": len(expected)}))
    if not failed:
        shutil.rmtree(root)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
