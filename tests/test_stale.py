"""A trial is stale when code, or a teacher, that it was made with has changed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MIXED, Lab
from invariants.probes import only, statuses

from kdbench.data import DATASETS
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.models.weights import state_hash, write_weights
from kdbench.registry import Registry
from kdbench.results.trial_folder import stale, trial_folders
from kdbench.runner.plan import Rerun
from kdbench.spec.trial import TrialSpec
from kdbench.suite import code_hash as code_of
from kdbench.suite.plugins import load_path
from kdbench.training.single import Single

PLUGIN = '''"""A method."""
from kdbench import Method, register


@register("mine")
class Mine(Method):
    """Pulls the pooled vectors together."""

    reads = ("pooled",)

    def losses(self, student, teacher, batch):
        """The gap."""
        return {"gap": 2.0 * (student.pooled - teacher.pooled).square().mean()}  # twice
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """The file of the method `mine`; edit it, and `code_of._files_hash.cache_clear()` stands for a new process."""
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    restore = METHODS.snapshot()
    load_path(file)
    yield file
    restore()
    code_of._files_hash.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    code_of._files_hash.cache_clear()


def test_a_trial_is_stale_when_its_methods_code_has_changed_and_only_then(lab: Lab, plugin: Path) -> None:
    suite = lab.suite(methods=["mine", "kd"])
    lab.run(suite)
    edit(plugin, "# twice", "# 2")
    edit(plugin, '"""The gap."""', '"""What is pulled together."""')
    edit(plugin, "student, teacher, batch", "student,    teacher,\n        batch")
    assert statuses(lab, suite) == {"mine": "done", "kd": "done"}
    edit(plugin, "2.0 *", "3.0 *")
    assert statuses(lab, suite) == {"mine": "stale", "kd": "done"}
    lab.run(suite)
    assert statuses(lab, suite) == {"mine": "done", "kd": "done"}


NARROW = """from kdbench.models import build_model, register_model
@register_model('narrow')
def narrow(*, num_classes, in_channels):
    return build_model('resnet8', num_classes=num_classes, in_channels=in_channels)
"""


OURS = """import kdbench
from kdbench.data.imagefolder import ImageFolder
@kdbench.register_dataset('ours')
class Ours(ImageFolder):
    std = 0.5
"""


@pytest.mark.parametrize(
    ("registry", "text", "changes", "old", "new"),
    [
        (MODELS, NARROW, {"pairs": [{"teacher": "resnet8", "student": "narrow"}]}, "resnet8", "resnet14"),
        (DATASETS, OURS, {"dataset": {"name": "ours"}}, "0.5", "0.25"),
    ],
    ids=["student", "data set"],
)
def test_a_trial_is_stale_when_a_plugin_has_changed_what_it_is_made_of(
    registry: Registry[Any], text: str, changes: dict[str, Any], old: str, new: str, lab: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(text)
    restore = registry.snapshot()
    try:
        load_path(file)
        suite = lab.suite(methods=["kd"], **changes)
        lab.run(suite)
        assert statuses(lab, suite) == {"kd": "done"}
        edit(file, old, new)
        assert statuses(lab, suite) == {"kd": "stale"}
    finally:
        restore()
        code_of._files_hash.cache_clear()


def test_the_hash_of_code_is_the_same_on_every_python(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(PLUGIN + "def f(a=None, *b): return f'{a!r:>{3}}' or [] or None\n")
    assert code_of._files_hash((str(file),)) == "b2e79069ec26e30e"


def test_a_checkpoint_of_other_code_is_not_gone_on_from(lab: Lab, plugin: Path, one_epoch_a_run: dict[str, Any]) -> None:
    suite = lab.suite(methods=["mine"])
    while not lab.store.has_checkpoint(only(suite, "mine").id):
        lab.run(suite, **one_epoch_a_run)
    edit(plugin, "2.0 *", "3.0 *")
    lab.run(suite)
    assert lab.file(only(suite, "mine"), "checkpoint.pt.broken").exists()
    assert [row["epoch"] for row in lab.curves(only(suite, "mine"))] == [1, 2]


def test_students_of_a_stale_teacher_are_stale(finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(suite.teachers[0])
    file.write_text(json.dumps({**json.loads(file.read_text()), "method_code": "0" * 16}))
    assert statuses(finished, suite) == {"scratch": "done"} | dict.fromkeys(("kd", "fitnets", "ft", "crd+kd"), "stale")
    finished.run(suite)
    assert finished.outcomes() == undisturbed.outcomes()


def retrain_otherwise(lab: Lab, teacher: TrialSpec) -> None:
    """Leave the teacher as another version of the code might have trained it."""
    from safetensors.torch import load_file

    file = lab.file(teacher, "weights.safetensors")
    weights = {name: value * 1.01 if value.is_floating_point() else value for name, value in load_file(file).items()}
    write_weights(file, weights)
    record = json.loads(lab.file(teacher).read_text())
    lab.file(teacher).write_text(json.dumps({**record, "weights_sha256": state_hash(weights)}))


def test_students_and_stages_of_a_teacher_that_has_changed_are_done_again(finished: Lab) -> None:
    suite = finished.suite(**{**MIXED, "methods": MIXED["methods"][-2:]})
    (teacher,) = suite.teachers
    retrain_otherwise(finished, teacher)
    assert statuses(finished, suite) == {"ft": "stale", "crd+kd": "stale"}
    finished.run(suite)
    continued = finished.outcomes()
    shutil.rmtree(finished.file(teacher, "stages"))
    finished.run(suite, rerun=Rerun.ALL)
    assert finished.outcomes() == continued


def test_a_run_leaves_no_student_stale_whose_lost_teacher_it_trained_otherwise(finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**{**MIXED, "methods": ["kd", "sp"]})
    (teacher,) = suite.teachers
    record = finished.file(only(suite, "kd"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "teacher_weights_sha256": "0" * 16}))
    shutil.rmtree(finished.store.folder(teacher.id))
    assert statuses(finished, suite) == {"kd": "done", "sp": "missing"}
    assert finished.run(suite)
    assert statuses(finished, suite) == {"kd": "done", "sp": "done"}
    assert finished.outcomes()[only(suite, "kd").id] == undisturbed.outcomes()[only(suite, "kd").id]


def test_students_stay_done_where_their_lost_teacher_fails_when_it_is_trained_again(
    finished: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = finished.suite(**{**MIXED, "methods": ["kd", "sp"]})
    (teacher,) = suite.teachers
    finished.file(teacher, "weights.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Single, "train_step", lambda unit, inputs: 1 / 0)
        finished.run(suite)
    assert finished.record(teacher).status == "failed"
    assert statuses(finished, suite) == {"kd": "done", "sp": "missing"}
    assert not stale(trial_folders(finished.store.root)), "`trials list` says the same"
    finished.run(suite, rerun=Rerun.FAILED)
    assert statuses(finished, suite) == {"kd": "done", "sp": "done"}
