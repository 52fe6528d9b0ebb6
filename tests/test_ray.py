"""The engine `ray`, on a real cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import MIXED, Said

from kdbench.errors import KdbenchError
from kdbench.runner.assignment import Died, Ended, Resumed, Trained
from kdbench.runner.engines.parcel import Watch, unpack
from kdbench.runner.run import Options, execute

ray = pytest.importorskip("ray")

PLUGIN = """
import time

import kdbench
from {helper} import nothing

@kdbench.register("own")
class Own(kdbench.Method):
    \"\"\"It imports a file beside it.\"\"\"

    reads = ()

    def losses(self, student, teacher, batch):
        if "kdbench-ray-" in __file__:
            time.sleep(0.2)  # on a node, so that it is stopped before its end, however fast the machine
        return {{"nothing": nothing(student)}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A head, which runs no jobs, and two nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_worker_niceness", "0")  # it is 15, and other tests run beside these
        # From Python 3.13 on, a forked process lets go of what was to be called at the end, and dies of freeing Ray's clients.
        patch.setattr("ray._private.node.atexit", SimpleNamespace(register=lambda call: None))
        node = {"include_dashboard": False, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, **node)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            signal.signal(signal.SIGTERM, before)  # Ray's holds its clients


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch):
    """Gives `(engine, place, news)` to a function before the driver hears it."""
    from kdbench.runner.engines.ray import Ray

    original = Ray.news

    def listen(heard) -> None:
        def news(engine, timeout_s):
            for place, told in original(engine, timeout_s):
                heard(engine, place, told)
                yield place, told

        monkeypatch.setattr(Ray, "news", news)

    return listen


def on_node(worker, ask):
    """What the actor answers."""
    return ray.get(worker.actor.__ray_call__.remote(ask))


def test_a_process_that_is_killed_and_a_node_that_is_lost_change_no_bit(cluster, lab, undisturbed, hear, monkeypatch):
    monkeypatch.setattr("kdbench.runner.engines.ray.CHECKPOINT_EVERY_S", 0.0)
    done: list[str] = []

    def heard(engine, place, told):
        if isinstance(told, Resumed):
            done.append("resumed")
        if not isinstance(told, Trained) or not told.report.main:
            return
        worker = engine._at(place)
        if not done:
            (process,) = on_node(worker, lambda self: [process.popen.pid for process in self._local._processes.values()])
            os.kill(process, signal.SIGKILL)
            done.append("process")
        elif "node" not in done and len(told.report.lanes) > 1:
            lost = on_node(worker, lambda self: ray.get_runtime_context().get_node_id())
            cluster.remove_node(next(node for node in cluster.worker_nodes if node.node_id == lost), allow_graceful=False)
            done.append("node")

    hear(heard)
    said, options = Said(), Options(engine="ray", address=cluster.address, device="cpu:1")
    assert execute(lab.suite(**MIXED), lab.store, options=options, progress=said)
    assert done[:3] == ["process", "resumed", "node"] and "resumed" in done[3:]
    assert any("was killed by SIGKILL" in line for line in said.lines) and any("was lost" in line for line in said.lines)
    assert lab.outcomes() == undisturbed.outcomes()


def test_what_workers_made_comes_home_where_the_run_ends_at_once(cluster, lab, hear):
    """No checkpoint has travelled before: they do every ten minutes."""

    def heard(engine, place, told):
        if isinstance(told, Trained) and told.report.main and told.report.epoch == 2:
            raise KeyboardInterrupt

    hear(heard)
    suite = lab.suite(methods=["scratch"], recipe={"epochs": 4000})
    with pytest.raises(KeyboardInterrupt):
        execute(suite, lab.store, options=Options(engine="ray", address=cluster.address, device="cpu:1"), progress=Said())
    (trial,) = suite.trials
    rows = (lab.store.folder(trial.id) / "curves.jsonl").read_text().splitlines()
    assert lab.store.has_checkpoint(trial.id) and 2 <= len(rows) < 4000


def test_what_a_job_needs_travels_and_a_stopped_one_goes_on_here(cluster, lab, another, undisturbed, hear, monkeypatch, tmp_path):
    """While a job runs, the plugin, what it imports and the teacher's weights lie nowhere but on the node. It is claimed, too."""
    from kdbench.runner.engines.ray import Ray

    travelling = tmp_path / "travelling"
    travelling.mkdir()
    plugin, helper, weights = (travelling / name for name in ("own.py", "own_helper.py", "teacher.safetensors"))
    plugin.write_text(PLUGIN.format(helper="own_helper"))
    helper.write_text("def nothing(student):\n    return 0 * student.logits.sum()\n")
    (teacher,) = undisturbed.suite(**MIXED).teachers
    shutil.copy(undisturbed.file(teacher, "weights.safetensors"), weights)
    monkeypatch.syspath_prepend(str(travelling))
    start, away = Ray.start, tmp_path / "away"

    def start_and_hide(engine, place, assignment, folder):
        start(engine, place, assignment, folder)
        travelling.rename(away)

    def heard(engine, place, told):
        if isinstance(told, Trained):
            trained.append(told)
        if isinstance(told, Ended | Died):
            away.rename(travelling)

    monkeypatch.setattr(Ray, "start", start_and_hide)
    pair = {"teacher": {"model": "wrn_10_1", "weights": str(weights)}, "student": "resnet8"}
    recipe = {**MIXED["recipe"], "epochs": 12}
    changes = {**MIXED, "recipe": recipe, "methods": ["kd", "own"], "plugins": [str(plugin)], "pairs": [pair]}
    trained: list[Trained] = []
    hear(heard)
    suite = lab.suite(**changes)
    options = Options(engine="ray", address=cluster.address, device="cpu:1", claim=True, stop=lambda: bool(trained))
    assert not execute(suite, lab.store, options=options, progress=Said())
    assert os.listdir(lab.store.root / "claims") == []
    assert 0 < len(trained) < 12
    assert sum(lab.store.has_checkpoint(trial.id) for trial in suite.trials) == 2
    assert lab.run(suite)
    assert another.run(another.suite(**changes))
    assert lab.outcomes() == another.outcomes()


@pytest.mark.parametrize("others", [0, 1])
def test_workers_that_cannot_start_end_the_run_only_where_there_are_no_others(others):
    from kdbench.runner.engines.ray import Ray, RayError

    said: list[str] = []
    engine = Ray.__new__(Ray)
    engine._workers, engine._failures, engine._say = [None] * others, 0, said.append
    ends = nullcontext() if others else pytest.raises(KdbenchError, match="no worker can start on the Ray cluster: no module")
    with ends:
        for _ in range(5):
            engine._could_not_start(RayError("Traceback\nno module"))
    assert len(said) == others


def test_machines_of_one_name_have_places_of_their_own():
    from kdbench.runner.engines.ray import Ray, _Worker
    from kdbench.runner.engines.ray_worker import Where, own_code
    from kdbench.runner.engines.wish import Wish

    engine = Ray.__new__(Ray)
    engine._wish, engine._refused, engine._stopping = Wish(None, None), {}, False
    engine._workers = [_Worker(None, None) for _ in range(3)]
    for worker in engine._workers:
        engine._arrived(worker, Where("node", "0", own_code()))
    assert [place.name for place in engine.places] == ["node cuda:0", "node cuda:0 (2)", "node cuda:0 (3)"]


def test_a_node_with_another_kdbench_is_left_out(tmp_path, monkeypatch):
    from kdbench.runner.engines.ray import Ray, _Worker
    from kdbench.runner.engines.ray_worker import Where
    from kdbench.runner.engines.wish import Wish

    monkeypatch.setattr("kdbench.runner.engines.ray.own_code", lambda: ("9.9", "abc"))
    monkeypatch.setattr(Ray, "_recruit", lambda engine: None)
    engine = Ray.__new__(Ray)
    engine._wish, engine._refused, engine._stopping = Wish(1, None), {}, False
    engine._workers = [worker] = [_Worker(None, None)]
    engine._arrived(worker, Where("node", None, ("9.8", "def")))
    (place,) = engine.places
    engine.start(place, None, tmp_path)  # it sends nothing: there is no actor
    reason = r"^node has kdbench 9.8 \(code def\), and this machine 9.9 \(code abc\): install the same on both$"
    told, died = next(engine.news(0))
    assert told == place and isinstance(died, Died) and re.match(reason, died.reason)


def test_folders_of_killed_workers_go(tmp_path, monkeypatch):
    from kdbench.runner.engines import ray_worker

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine, gone, half = ray_worker._new_folder(), ray_worker._new_folder(), ray_worker._new_folder()
    process = json.loads((gone / "process.json").read_text())
    (gone / "process.json").write_text(json.dumps({**process, "started": "another time"}))
    (half / "process.json").write_text("")
    ray_worker._remove_leftovers()
    assert sorted(tmp_path.iterdir()) == sorted([mine, half])


def test_what_changes_in_a_folder_travels_once_and_what_is_gone_goes(tmp_path: Path):
    def names(changes):
        return {name: data and data.decode() for name, data in changes.items()}

    here, there = tmp_path / "here", tmp_path / "there"
    unpack({"trials/a/checkpoint.pt": b"0", "trials/b/record.json": b"1", "trials/b/curves.jsonl": b"2"}, here)
    watch = Watch(here)
    assert watch.changes() == {}
    unpack({"trials/a/checkpoint.pt": b"3", "trials/b/record.json": None, "trials/a/.partial": b"4"}, here)
    assert names(watch.changes("b")) == {"trials/b/record.json": None}
    found = watch.changes()
    assert names(found) == {"trials/a/checkpoint.pt": "3"}
    assert watch.changes() == {}
    unpack(found, there)
    assert [file.read_text() for file in there.rglob("*") if file.is_file()] == ["3"]


@pytest.mark.parametrize(
    ("device", "nodes", "threads", "workers"),
    [
        ("auto", [{"GPU": 8.0, "CPU": 64.0}, {"CPU": 64.0}, {"GPU": 2.0}], None, 10),
        ("auto", [{"CPU": 64.0}, {"CPU": 2.0}, {}], 2, 33),
        ("cpu", [{"GPU": 8.0, "CPU": 64.0}], 4, 16),
        ("cpu:2", [{"CPU": 2.0}], 1, 2),
        ("cpu:9", [{"CPU": 2.0}], 1, 9),
        ("cuda", [{"CPU": 64.0}], None, 1),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_for_some_cpus(device, nodes, threads, workers):
    from kdbench.runner.engines.wish import wished

    wish = wished(device, nodes)
    assert (wish.threads, wish.workers(nodes)) == (threads, workers)


@pytest.mark.parametrize(
    ("wish", "free", "at_once"),
    [((None, None), {"GPU": 3.0}, 3), ((None, None), {}, 1), ((None, None), {"GPU": 50.0}, 10), ((4, None), {"CPU": 9.0}, 2)],
)
def test_jobs_are_split_for_what_others_leave_free(monkeypatch, wish, free, at_once):
    from kdbench.runner.engines.ray import Ray
    from kdbench.runner.engines.wish import Wish

    monkeypatch.setattr(ray, "available_resources", lambda: free)
    engine = Ray.__new__(Ray)
    engine._wish, engine._wanted, engine._workers = Wish(*wish), 10, []
    assert engine.at_once == at_once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:0"}, "'cuda:0' cannot be chosen: Ray gives the GPUs out"),
        ({"device": "cpu:0"}, "'cpu:0' is no worker at all"),
        ({"address": "auto"}, r"no Ray cluster can be used at the address auto \(nobody answers\). Start one with"),
        ({"engine": "", "address": "auto"}, "'auto' is of a Ray cluster. Give --engine ray"),
    ],
)
def test_what_cannot_be_is_told(lab, monkeypatch, options, message):
    def nobody(*arguments, **options):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(KdbenchError, match=message):
        execute(lab.suite(), lab.store, options=Options(**{"engine": "ray", **options}), progress=Said())


def test_without_the_package_its_command_is_named(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "kdbench.runner.engines.ray", raising=False)
    with pytest.raises(KdbenchError, match=r"Install it with pip install 'kdbench\[ray\]'"):
        execute(lab.suite(), lab.store, options=Options(engine="ray"), progress=Said())
