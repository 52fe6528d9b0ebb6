"""6. Isolation: a lane that diverges or raises is recorded as failed with its reason, and the others go on."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MIXED, Lab

from invariants.odd_methods import Careless, Faulty
from invariants.probes import only, statuses
from kdbench import Batch, KdbenchError, Losses, Outputs
from kdbench.cli import main
from kdbench.method.interface import METHODS
from kdbench.runner.plan import Rerun

FAULTS = {
    "build": "RuntimeError: on purpose in build",
    "stages": "RuntimeError: on purpose in stages",
    "lesson": "stage faulty.lesson failed: RuntimeError: on purpose in lesson",
    "nan in lesson": "stage faulty.lesson failed: the loss is nan in epoch 1 of stage faulty.lesson (terms: lesson); lower the "
    "learning rate of this stage",
    "hint": "RuntimeError: on purpose in hint",
    "nan in hint": "the loss is nan in epoch 1 of stage faulty.hint (terms: hint)",
    "losses": "RuntimeError: on purpose in losses",
    # it alone began it
    "nan in main": "the loss is nan in epoch 2 of stage main (terms: faulty.main); lower the learning rate, or",
    "predict": "RuntimeError: on purpose in predict",
    "predict in evaluation": "RuntimeError: on purpose in predict in evaluation",
}
"""Where `Faulty` fails, and the reason that its record must give."""


@pytest.mark.parametrize("lanes", [0, 1])
def test_a_lane_that_raises_or_diverges_fails_with_its_reason_and_the_others_are_as_without_it(
    lanes: int, finished: Lab, undisturbed: Lab, register: Callable[..., None]
) -> None:
    register("faulty", Faulty)
    suite = finished.suite(**{**MIXED, "methods": [*({"faulty": {"at": place}} for place in FAULTS), *MIXED["methods"]]})
    finished.run(suite, rerun=Rerun.ALL, lanes=lanes)
    outcomes = finished.outcomes()
    assert {trial: outcomes[trial] for trial in undisturbed.outcomes()} == undisturbed.outcomes()
    for trial in suite.trials:
        if trial.method == "faulty":
            place = trial.methods[0].params["at"]
            record = finished.record(trial)
            assert (record.status, record.test_error_pct) == ("failed", None), place
            assert FAULTS[place] in (record.reason or ""), place
            epochs = [(row["stage"], row["epoch"]) for row in finished.curves(trial)]
            if place in ("losses", "nan in main"):
                assert epochs == [("faulty.lesson", 1), ("faulty.hint", 1), ("main", 1)], "the epochs before it are kept"


ODD = """
import torch
from kdbench import Method, register

@register("odd")
class Odd(Method):
    reads = ("logits",)
    def losses(self, student, teacher, batch):
        return {"distance": (student.logits - torch.zeros(3, 7)).mean()}

@register("endless")
class Endless(Method):
    reads = ("logits",)
    def losses(self, student, teacher, batch):
        return {"distance": (student.logits.square().sum() * 0 - 1).log()}
"""


def test_where_a_method_of_ones_own_fails_the_way_to_try_it_is_told(
    lab: Lab, tmp_path: Path, register: Callable[..., None]
) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    suite = lab.suite(methods=["odd", "endless", "endless+kd"], plugins=[str(tmp_path / "odd.py")])
    lab.run(suite)
    reasons = {trial.method: lab.record(trial).reason or "" for trial in suite.trials}
    check = "; `kdbench check odd.py` tries the method without training"
    assert reasons["odd"].startswith("RuntimeError: The size of tensor a")
    assert reasons["odd"].endswith(f"(odd.py:9){check}")
    for method in ("endless", "endless+kd"):
        assert reasons[method].startswith("the loss is nan in epoch 1 of stage main (terms: ")
        assert reasons[method].endswith(f", or set `gradient_clipping` in the recipe{check}")


def test_a_method_that_cannot_be_built_for_a_stage_of_the_teacher_fails_alone(lab: Lab, register: Callable[..., None]) -> None:
    register("faulty", Faulty)
    pairs = [{"teacher": "wrn_10_2", "student": "resnet8"}]  # for a stage of its own the teacher stands in for the student
    suite = lab.suite(methods=[{"faulty": {"at": "build for equal networks"}}, "kd"], pairs=pairs)
    lab.run(suite)
    assert statuses(lab, suite) == {"faulty": "failed", "kd": "done"}
    reason = lab.record(only(suite, "faulty")).reason
    assert reason == "RuntimeError: stage faulty.lesson failed: RuntimeError: on purpose in build for equal networks"


class Loud(Careless):
    """Out of balance, and without a parameter to mend it."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {name: 1e6 * term for name, term in super().losses(student, teacher, batch).items()}


def test_a_warning_of_balance_harms_nobody(lab: Lab, register: Callable[..., None]) -> None:
    register("loud", Loud)
    suite = lab.suite(methods=["loud", "kd"], recipe={"optimiser": {"lr": 1e-9}})
    lab.run(suite)
    assert statuses(lab, suite) == {"loud": "done", "kd": "done"}


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("build", MemoryError("on purpose")),
        ("stages", OSError(errno.ENOSPC, "on purpose")),
        ("lesson", torch.OutOfMemoryError("on purpose")),
        ("build for equal networks", OSError(errno.EMFILE, "on purpose")),
        ("hint", MemoryError("on purpose")),
        ("losses", torch.OutOfMemoryError("on purpose")),
        ("losses", RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")),
        ("losses", torch.AcceleratorError("CUDA error: device-side assert triggered")),
        ("predict in evaluation", OSError(errno.EROFS, "on purpose")),
    ],
)
def test_a_fault_of_the_machine_ends_the_run_and_is_no_trials_result(
    place: str, fault: Exception, lab: Lab, register: Callable[..., None]
) -> None:
    class Unlucky(Faulty):
        def break_at(self, place: str) -> None:
            if self.params.at == place:
                raise fault

    register("unlucky", Unlucky)
    pairs = [{"teacher": "wrn_10_2", "student": "resnet8"}]
    suite = lab.suite(methods=[{"unlucky": {"at": place}}, "kd"], pairs=pairs)
    with pytest.raises(KdbenchError, match="what is finished is kept"):
        lab.run(suite)
    assert set(statuses(lab, suite).values()) <= {"missing", "started"}
    assert lab.run(lab.suite(methods=["kd"], pairs=pairs))


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize("place", ["build", "losses", "predict in evaluation"])
def test_a_file_that_a_method_does_not_find_is_the_methods_fault(place: str, lab: Lab) -> None:
    class Reads(Faulty):
        def break_at(self, place: str) -> None:
            if self.params.at == place:
                Path("/nowhere/embeddings.npy").read_bytes()

    METHODS.register("reads")(Reads)  # from this file: an exception is a method's own where it went through the method's file
    suite = lab.suite(methods=[{"reads": {"at": place}}, "kd"])
    assert lab.run(suite)
    assert statuses(lab, suite) == {"reads": "failed", "kd": "done"}
    assert "/nowhere/embeddings.npy" in (lab.record(only(suite, "reads")).reason or "")


def test_the_exit_status_says_that_a_trial_failed(
    finished: Lab, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register("faulty", Faulty)
    file = finished.write(**{**MIXED, "methods": [{"faulty": {"at": "losses"}}]})
    monkeypatch.setattr(sys, "argv", ["kdbench", "run", str(file), "--results", str(finished.store.root), "--device", "cpu"])
    for _ in range(2):  # when it fails, and when it has failed
        with pytest.raises(SystemExit) as exit_status:
            main()
        assert exit_status.value.code == 1
        assert "1 failed" in capsys.readouterr().out


def test_a_teacher_that_diverges_takes_its_students_along_and_nobody_else(lab: Lab, another: Lab) -> None:
    suite = lab.suite(teacher={"recipe": {"optimiser": {"lr": 1e30}}})
    lab.run(suite)
    (teacher,) = lab.plan(suite).teachers
    assert teacher.status == "failed"
    assert statuses(lab, suite) == {"scratch": "done", "kd": "missing"}
    alone = another.suite(methods=["scratch"])
    another.run(alone)
    assert lab.outcomes(alone) == another.outcomes()
