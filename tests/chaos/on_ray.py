"""Runs of a small suite on a Ray cluster that loses processes and nodes at random: `python tests/chaos/on_ray.py --runs 30`.

The cluster is a real one on this machine: a head without work, and two nodes with a CPU each. A node that is killed is replaced
later, or not before the run's end. Drivers are the command line, as a user starts it. What must hold is what `run.py` asks for.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import torch
from conftest import Lab, write_images
from ray.cluster_utils import Cluster
from run import HARMS as OF_DRIVERS
from run import SUITE, Broken, Harm, Run, add_options, children, disturb, kill, kills, repeat

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

    def abandon(self) -> None:
        for process in self.started:
            kill(process.pid)

    def see_no_process(self) -> None:
        until = time.monotonic() + 60
        while left := processes("ray::RayWorker"):
            if time.monotonic() > until:
                raise Broken(f"workers are left over: {left}")
            time.sleep(0.1)


def actors(driver: int) -> list[int]:
    """Of any driver: one is at work at a time."""
    return processes("ray::RayWorker")


def trainings(driver: int) -> list[int]:
    """Processes that train, below actors."""
    return [child for actor in actors(driver) for child in children(actor)]


def kills_a_node(run: Run, dice: random.Random) -> None:
    assert isinstance(run, OnRay)
    driver = run.drive()
    run.sleep(dice)
    run.cluster.remove_node(dice.choice([*run.cluster.worker_nodes]), allow_graceful=False)
    if dice.random() < 0.7:
        run.sleep(dice)
        run.whole()
    run.ended(driver)
    run.whole()


HARMS: dict[str, Harm] = {
    "a training process killed": kills(trainings),
    "an actor killed": kills(actors),
    "a node killed": kills_a_node,
    **{name: OF_DRIVERS[name] for name in ("the driver killed", "SIGTERM", "SIGTERM twice", "two drivers")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, runs=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    images = write_images(root / "stripes")
    os.environ |= {"XDG_CACHE_HOME": str(root / "cache"), "RAY_worker_niceness": "0"}
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    try:
        alone = Lab(root / "alone", images)
        alone.root.mkdir()
        assert alone.run(alone.suite(**SUITE, seeds=[0]))
        expected = alone.outcomes()
        first = OnRay(Lab(root / "two", images), "ray", 0.0, False, [], seeds=1, cluster=cluster)
        first.lab.root.mkdir()
        first.whole()
        began = time.monotonic()
        assert first.ended(first.drive()) == [0]
        span_s = time.monotonic() - began
        print(f"undisturbed: {len(expected)} trials, {span_s:.1f} s on {NODES} nodes; in {root}", flush=True)

        def one(folder: Path, seed: int) -> list[str]:
            run = OnRay(Lab(folder, images), "ray", span_s, False, [], seeds=1, cluster=cluster)
            dice = random.Random(seed)
            try:
                return disturb(run, [dice.choice(list(HARMS)) for _ in range(dice.choice((1, 2)))], HARMS, dice, expected)
            finally:
                run.whole()

        repeat(given, root, one, engine="ray", trials=len(expected))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
