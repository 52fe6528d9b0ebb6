"""A device that does not answer ends its process, and nothing else that lasts long does."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, Lab, Said

from kdbench.errors import KdbenchError
from kdbench.models import build_model
from kdbench.models.weights import write_weights
from kdbench.results.runs import find_runs
from kdbench.results.store import Store
from kdbench.runner import job_runner, recorder, teachers, watchdog
from kdbench.runner.run import Options, execute
from kdbench.runner.watchdog import Watchdog
from kdbench.suite.resolve import load_suite
from kdbench.training.evaluation import Evaluator
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.single import Single
from kdbench.training.waiting import Waiting

TIMEOUT_S = 0.4
METHODS = ["kd", "hangs"]
CPU = torch.device("cpu")

HANGS = '''
import time
from pathlib import Path

from kdbench import Batch, Losses, Method, Outputs, register
from kdbench.runner import watchdog

watchdog.answers_late = lambda device: True  # as if the CPU computed beside the host
MARK = Path(__file__).with_name("hangs")


@register("hangs")
class Hangs(Method):
    """In its second epoch its device does not answer, once."""

    reads = ("logits",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if batch.epoch == 1 and MARK.exists():
            MARK.unlink()
            time.sleep(600)
        return {"gap": (student.logits - teacher.logits).square().mean()}
'''


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU counts as a device that answers late."""
    monkeypatch.setattr(watchdog, "answers_late", lambda device: True)


def given_up(act) -> list[str]:
    """What a watchdog said during `act(waiting)`."""
    said: list[str] = []
    with Watchdog(CPU, timeout_s=TIMEOUT_S, give_up=said.append) as dog:
        act(dog.waiting)
    return said


def test_a_wait_that_lasts_too_long_is_given_up_and_names_the_lanes(late):
    def act(waiting: Waiting) -> None:
        with waiting.for_device(["kd", "ft"]):
            time.sleep(2 * TIMEOUT_S)

    (text,) = given_up(act)
    assert text.startswith("cpu has not answered for 0:00. These trained on it: kd, ft. What is finished is kept")


def test_neither_a_slow_host_nor_many_waits_nor_what_comes_after_an_exception_is(late):
    def slow():
        for _ in range(2):
            time.sleep(2 * TIMEOUT_S)
            yield

    def act(waiting: Waiting) -> None:
        with pytest.raises(RuntimeError), waiting.for_device(["kd"]):
            list(waiting.items(slow()))
            raise RuntimeError
        for _ in range(16):
            with waiting.for_device(["kd"]):
                time.sleep(TIMEOUT_S / 8)
        time.sleep(2 * TIMEOUT_S)
        assert waiting.count % 2 == 0

    assert given_up(act) == []


def test_on_the_cpu_nothing_is_watched():
    before = threading.active_count()
    with Watchdog(CPU, timeout_s=TIMEOUT_S, give_up=pytest.fail):
        assert threading.active_count() == before


def test_surveys_and_examinations_are_watched_as_steps_are(lab, monkeypatch):
    """The teacher's passes are those of the survey, too, and those in which it is examined, as it is used or as it was given.

    A disk that is slow is no device that hangs.
    """
    kept: list[Waiting] = []
    asked: dict[str, list[bool]] = {}

    def noting(name: str, act):
        def noted(*args, **options):
            asked.setdefault(name, []).append(kept[-1].count % 2 == 1)
            return act(*args, **options)

        return noted

    monkeypatch.setattr(watchdog, "Waiting", lambda: kept.append(Waiting()) or kept[-1])
    for owner, name in (
        *((Evaluator, "update"), (FrozenTeacher, "__call__"), (Single, "step")),
        *((recorder, "inference_images_per_s"), (teachers, "inference_images_per_s")),
        *(writes := ((recorder, "keep"), (Store, "write_record"), (job_runner, "write_checkpoint"))),
    ):
        monkeypatch.setattr(owner, name, noting(f"{owner.__name__}.{name}", getattr(owner, name)))
    weights = build_model("wrn_10_1", num_classes=CLASSES, in_channels=1).state_dict()
    write_weights(lab.root / "given.safetensors", weights)
    teacher = {"model": "wrn_10_1", "weights": str(lab.root / "given.safetensors")}
    assert lab.run(lab.suite(methods=["kdpp", "kd"], pairs=[{"teacher": teacher, "student": "resnet8"}], keep_students=True))
    for owner, name in writes:
        assert not any(asked.pop(f"{owner.__name__}.{name}"))
    assert len(asked) == 5 and all(map(all, asked.values())), asked
    assert kept[-1].count % 2 == 0


@pytest.fixture(scope="module")
def hanging(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab in which a method's device did not hang, beside the plugin with the method; a file `hangs` there makes it hang once."""
    lab = Lab(tmp_path_factory.mktemp("hanging"), images)
    (lab.root / "hangs.py").write_text(HANGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "answers_late", watchdog.answers_late)  # as the plugin does
        lab.run(lab.suite(methods=METHODS, plugins=[str(lab.root / "hangs.py")]))
    return lab


@pytest.fixture
def plugin(hanging: Lab) -> str:
    """The plugin, with a method that hangs."""
    (hanging.root / "hangs").touch()
    return str(hanging.root / "hangs.py")


def test_the_run_says_so_ends_with_status_1_and_goes_on_from_its_checkpoint(lab, hanging, plugin):
    file = lab.write(methods=METHODS, plugins=[plugin])
    options = ["--results", str(lab.store.root), "--device", "cpu", "--device-timeout", "2s"]
    done = subprocess.run([sys.executable, "-m", "kdbench", "run", str(file), *options], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "has not answered" in line)
    assert line.startswith("error: cpu has not answered for 0:02. These trained on it: kd, hangs.")
    (run,) = find_runs(lab.store.root)
    assert run.now.ended and run.now.ended.reason in line
    suite, said, resumed = load_suite(file), Said(), list[str]()
    said.resumed = lambda lane, place=None: resumed.append(lane.name)
    assert execute(suite, lab.store, options=Options(device="cpu"), progress=said)
    assert resumed == METHODS
    assert lab.outcomes() == hanging.outcomes()


def test_a_worker_says_so_and_another_one_goes_on(lab, hanging, plugin):
    said = Said()
    suite = lab.suite(methods=METHODS, plugins=[plugin])
    assert execute(suite, lab.store, options=Options(device="cpu", engine="local", device_timeout_s=2), progress=said)
    assert any(line.startswith("cpu has not answered for 0:02. These trained on it: kd, hangs.") for line in said.lines), said.lines
    assert lab.outcomes() == hanging.outcomes()


def test_a_time_too_short_is_refused():
    with pytest.raises(KdbenchError, match=r"device_timeout_s: 0 is too short a time for a device to answer\. Give 1 s or more"):
        Options(device_timeout_s=0)
