"""What a plan still costs: sums whose answer is known by arithmetic, from trainings that never happened."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdbench.catalogue import plan as catalogue
from kdbench.errors import KdbenchError
from kdbench.results.store import Store
from kdbench.runner.cost import costs, estimate_text, expected, remaining
from kdbench.runner.durations import JOB_S
from kdbench.runner.engines.local import place_names
from kdbench.runner.plan import Status, make_plan
from kdbench.runner.progress import Silent
from kdbench.runner.rates import Basis, Span
from kdbench.runner.run import Options, execute
from kdbench.runner.timings import epochs_behind, read_timings
from kdbench.spec.record import PROTOCOL
from kdbench.spec.trial import TrialSpec
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite

load_shipped()

SUITE = """
title: Sums
dataset: {name: digits, label: sums}
recipe: {epochs: 10, batch_size: 64, optimiser: {lr: 0.1}}
seeds: [0, 1]
methods: [scratch, kd]
pairs: [{teacher: resnet20, student: resnet8}, {teacher: resnet20, student: resnet14}]
"""
DEVICE = "Abacus"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


STORE = Store(Path("results"), protocol=PROTOCOL)


def plan(text: str = SUITE, **changes: str):
    for old, new in changes.items():
        text = "\n".join(f"{old}: {new}" if line.startswith(f"{old}:") else line for line in text.splitlines())
    Path("sums.yaml").write_text(text)
    return make_plan(load_suite("sums.yaml"), STORE)


def trial(student: str, method: str = "scratch", seed: int = 0, *, planned: Any = None) -> TrialSpec:
    """A trial of the suite, or one of its teachers."""
    planned = planned or plan()
    specs = [entry.spec for entry in (*planned.teachers, *planned.students)]
    return next(spec for spec in specs if (spec.student, spec.method, spec.seed) == (student, method, seed))


def measure(
    spec: TrialSpec,
    *,
    own: float,
    data: float = 0.0,
    teacher: float = 0.0,
    evaluation: float = 0.0,
    epoch: int = 1,
    stage: str = "main",
    device: str = DEVICE,
    before: Sequence[dict[str, Any]] = (),
    **others: float,
) -> None:
    """Leave behind what a training leaves that was interrupted after `epoch`; seconds per epoch. Rows of stages stand `before`."""
    row = {
        "stage": stage,
        "epoch": epoch,
        "train_s": own + data + teacher,
        "data_s": data,
        "teacher_s": teacher,
        "evaluation_s": evaluation,
        "images": 100,
        **others,
    }
    STORE.begin(spec.id, spec.model_dump(mode="json"), environment={"device": device})
    STORE.write_curves(spec.id, [*before, *[{**row, "train_s": 1e9, "epoch": epoch - 1}] * (epoch - 1), row])
    (STORE.folder(spec.id) / "checkpoint.pt").touch()


def cost(**changes: str):
    (found,) = costs(plan(**changes), STORE)
    return found


# What remains


def test_what_remains_are_the_students_that_a_run_takes_up_and_their_teachers():
    assert len(remaining(plan())) == 9
    assert [planned.spec.student for planned in remaining(plan(methods="[scratch]"))] == [
        "resnet8",
        "resnet8",
        "resnet14",
        "resnet14",
    ]


def test_a_teacher_that_has_failed_is_not_trained_and_neither_are_its_students():
    planned = plan()
    failed = replace(planned, teachers=tuple(replace(teacher, status=Status.FAILED) for teacher in planned.teachers))
    assert [left.spec.method for left in remaining(failed)] == ["scratch"] * 4


def test_a_finished_teacher_that_was_not_kept_is_trained_again():
    """As a student of another suite may be."""
    planned = plan(methods="[kd]", seeds="[0]")
    done = replace(planned, teachers=tuple(replace(teacher, status=Status.DONE) for teacher in planned.teachers))
    assert [left.spec.student for left in remaining(done)] == ["resnet20", "resnet8", "resnet14"]
    assert "resnet20 (seed 0): done, but its weights are not there: it is trained again" in catalogue.plan_as_text(done, [], None)
    weights = done.teachers[0].folder / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    kept = replace(planned, teachers=tuple(replace(teacher, status=Status.DONE) for teacher in planned.teachers))
    assert [left.spec.student for left in remaining(kept)] == ["resnet8", "resnet14"]
    assert "resnet20 (seed 0): done\n" in catalogue.plan_as_text(kept, [], None)


def test_nothing_is_said_where_nothing_was_measured():
    assert costs(plan(), STORE) == []


# Sums


def test_a_cohort_shares_its_batches_and_its_teacher():
    """Per seed: data and teacher once for each epoch, a step and an evaluation for each of four students."""
    measure(trial("resnet20"), own=6, data=1, evaluation=3, epoch=4)
    for student in ("resnet8", "resnet14"):
        measure(trial(student), own=2, data=1, evaluation=0.5, epoch=1)
        measure(trial(student, "kd"), own=4, data=1, teacher=5, evaluation=0.5, epoch=1)
    of_teacher = 6 * (6 + 3 + 1)
    begun = 9 * (2 * 2 + 2 * 4 + 4 * 0.5 + 1 + 5)
    not_begun = 10 * (2 * 2 + 2 * 4 + 4 * 0.5 + 1 + 5)
    found = cost()
    assert found.seconds == Span(*[of_teacher + begun + not_begun] * 3)
    assert (found.students, found.teachers, found.unknown, found.measured) == (8, 1, 0, 5)
    assert found.bases == {Basis.MEASURED: 9}


def test_students_without_a_teacher_share_no_teacher():
    measure(trial("resnet8"), own=2, data=1, epoch=5)
    measure(trial("resnet14"), own=2, data=1, epoch=5)
    assert cost(methods="[scratch]").seconds.mid == (5 * (2 + 2 + 1)) + (10 * (2 + 2 + 1))


def test_the_range_is_from_the_least_to_the_most_that_was_measured():
    for seed, own in ((0, 1.0), (1, 3.0)):
        for student in ("resnet8", "resnet14"):
            measure(trial(student, seed=seed), own=own)
    found = cost(methods="[scratch]")
    assert found.seconds == Span(mid=2 * 4 * 9, low=1 * 4 * 9, high=3 * 4 * 9)


def test_another_method_of_the_student_stands_in():
    measure(trial("resnet8"), own=2)
    measure(trial("resnet14"), own=2)
    found = cost(methods="[kd]")
    assert found.bases == {Basis.SAME_STUDENT: 4}
    assert found.unknown == 1, "of the teacher nothing is known"


def test_an_unmeasured_student_is_scaled_by_macs():
    STORE.note_macs("sums", {"resnet8": 100, "resnet14": 300})
    measure(trial("resnet8"), own=2, evaluation=1)
    found = cost(methods="[scratch]")
    assert found.seconds.mid == 9 * 3 + 10 * 3 + 2 * 10 * 9
    assert found.bases == {Basis.MEASURED: 2, Basis.SCALED: 2}


def test_the_same_method_of_another_student_is_scaled_before_any_other():
    STORE.note_macs("sums", {"resnet8": 100, "resnet14": 300, "resnet20": 900})
    measure(trial("resnet8", "kd"), own=5, teacher=4)
    measure(trial("resnet8"), own=2)
    found = cost(methods="[kd]", pairs="[{teacher: resnet20, student: resnet14}]", seeds="[0]")
    assert found.bases == {Basis.SCALED: 2}
    assert found.seconds.mid == 10 * 5 * 3 + 10 * 2 * 9 + 10 * 4, "kd, the teacher's training, its forward passes"


def test_a_run_expects_a_time_only_where_its_device_has_trained_each_network():
    STORE.note_macs("sums", {"resnet8": 100, "resnet14": 300})
    measure(trial("resnet8"), own=2, data=1)
    assert expected(plan(methods="[scratch]"), STORE, device=DEVICE, places=1) is None, "a network of other MACs says little"
    measure(trial("resnet14"), own=3, data=1)
    found = plan(methods="[scratch]")
    (known,) = costs(found, STORE, devices=2)
    assert expected(found, STORE, device=DEVICE, places=1) == known.seconds.mid
    assert expected(found, STORE, device=DEVICE, places=2) == known.devices_s != known.seconds.mid
    assert expected(found, STORE, device="another", places=1) is None
    assert expected(plan(), STORE, device=DEVICE, places=1) is None, "no teacher was trained"


def test_a_resumed_run_tells_what_is_left_before_its_first_epoch(finished):
    from conftest import MIXED

    class Heard(Silent):
        def begin(self, part):
            super().begin(part)
            left.append(self.pace.left_s)

    left: list[float | None] = []
    suite = finished.suite(**MIXED)
    shutil.rmtree(finished.store.folder(next(spec.id for spec in suite.trials if spec.method == "kd")))
    (known,) = costs(finished.plan(suite), finished.store)
    execute(suite, finished.store, options=Options(device="cpu"), progress=Heard())
    assert [0.0 < seconds <= known.seconds.mid for seconds in left if seconds is not None] == [True]


def test_without_macs_an_unmeasured_student_is_unknown_and_said_to_be():
    measure(trial("resnet8"), own=2)
    found = cost(methods="[scratch]")
    assert (found.seconds.mid, found.students, found.unknown) == (9 * 2 + 10 * 2, 4, 2)
    assert estimate_text(found).startswith("more than 38 s on ")
    assert "2 of unknown length and not counted" in estimate_text(found)


def test_a_teachers_forward_pass_is_a_third_of_its_training_step_where_it_was_never_measured():
    STORE.note_macs("sums", {"resnet8": 100, "resnet14": 100, "resnet20": 900})
    measure(trial("resnet20"), own=9, epoch=10)
    found = cost(methods="[kd]", seeds="[0]")
    assert found.seconds.mid == 10 * (2 * 1 + 3)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "{name: digits, label: others}"},
        {"recipe": "{epochs: 10, batch_size: 32, optimiser: {lr: 0.1}}"},
        {"recipe": "{epochs: 10, batch_size: 64, optimiser: {lr: 0.1}, precision: bf16}"},
        {"recipe": "{epochs: 10, batch_size: 64, optimiser: {lr: 0.1}, compile: true}"},
    ],
)
def test_other_images_batches_and_arithmetic_do_not_compare(change):
    measure(trial("resnet8"), own=2)
    assert costs(plan(**change), STORE) == []


def test_the_same_images_in_another_size_do_not_compare():
    def of_size(size: int):
        recipe = "{epochs: 10, batch_size: 64, optimiser: {lr: 0.1}, augmentation: {pad: 0}}"
        return plan(dataset=f"{{name: imagestream, label: sums, root: ., size: {size}}}", recipe=recipe)

    measure(trial("resnet8", planned=of_size(32)), own=2)
    assert costs(of_size(32), STORE) != [] == costs(of_size(64), STORE)


def test_another_length_of_training_compares():
    measure(trial("resnet8"), own=2)
    measure(trial("resnet14"), own=2)
    assert cost(methods="[scratch]", recipe="{epochs: 100, batch_size: 64, optimiser: {lr: 0.1}}").seconds.mid == 400 * 2


def test_a_student_that_is_tested_less_often_costs_less():
    """After epochs 4, 8 and 10; the first of them is over."""
    sparse = "{epochs: 10, batch_size: 64, optimiser: {lr: 0.1}, evaluate_every: 4}"
    one = {"methods": "[scratch]", "seeds": "[0]", "pairs": "[{teacher: resnet20, student: resnet8}]", "recipe": sparse}
    measure(trial("resnet8", planned=plan(**one)), own=2, evaluation=5, epoch=4)
    assert cost(**one).seconds.mid == 6 * 2 + 2 * 5


def test_an_epoch_of_a_stage_that_trains_the_student_costs_what_others_do():
    """Ten epochs of the main training come after three of the hint stage."""
    one = {"methods": "[fitnets: {hint_epochs: 3}]", "seeds": "[0]", "pairs": "[{teacher: resnet20, student: resnet8}]"}
    for name in ("resnet20", "resnet8"):
        measure(trial(name), own=2, data=1)
    of_teacher = 9 * (2 + 1)
    each = 2 + 1 + 2 / 3  # a pass of the teacher is a third of its step
    assert cost(**one).seconds.mid == pytest.approx(of_teacher + 13 * each)
    begun = trial("resnet8", "fitnets", planned=plan(**one))
    for stage, epoch, left in (("fitnets.hint", 2, 11), ("main", 4, 6)):
        measure(begun, own=2, data=1, stage=stage, epoch=epoch)
        assert cost(**one).seconds.mid == pytest.approx(of_teacher + left * each)


def test_a_stage_whose_epochs_no_parameter_counts_takes_nothing_from_what_is_left():
    """Else one that is longer than the main training would leave less than nothing."""
    one = {"methods": "[kd]", "seeds": "[0]", "pairs": "[{teacher: resnet20, student: resnet8}]"}
    for name in ("resnet20", "resnet8"):
        measure(trial(name), own=2, data=1)
    begun = trial("resnet8", "kd", planned=plan(**one))
    measure(begun, own=2, data=1, stage="kd.warm", epoch=12)
    assert epochs_behind(STORE, begun) == 0
    assert cost(**one).seconds.mid == pytest.approx(9 * (2 + 1) + 10 * (2 + 1 + 2 / 3))


STAGE = {"stage": "ft.paraphraser", "train_s": 10 + 1 + 2, "data_s": 1, "teacher_s": 2}
SEEDS = (
    SUITE.replace("[0, 1]", "[0, 1, 2]")
    .replace("[scratch, kd]", "[ft, ft+kd]")
    .replace(", {teacher: resnet20, student: resnet14}", "")
)


@pytest.mark.parametrize(
    ("text", "stages", "seconds"),
    [(SEEDS, 3, 3 * 30 + 9), (SEEDS + "stages: per-teacher", 1, 30 + 9), (SEEDS.replace("[ft, ft+kd]", "[ft: {k: 2}]"), 3, 0)],
    ids=["for each seed", "for all seeds", "of other parameters nothing is known"],
)
def test_stages_of_one_teacher_share_its_batches_and_students_share_stages(text, stages, seconds):
    """Of the student nothing but its stage takes time."""
    planned = plan(text)
    for spec in (planned.teachers[0].spec, trial("resnet8", planned=plan(SEEDS), method="ft")):
        measure(spec, own=0, before=[STAGE] * 3 if spec.methods[0].name == "ft" else [])
    (found,) = costs(planned, STORE)
    assert found.stages == stages
    assert found.seconds.mid == seconds
    assert found.unknown == (0 if seconds else stages)


def test_a_stage_is_scaled_by_the_macs_of_its_teacher():
    STORE.note_macs("sums", {"resnet20": 100, "resnet14": 30, "resnet8": 10})
    planned = plan(SEEDS.replace("teacher: resnet20", "teacher: resnet14"))
    measure(trial("resnet8", planned=plan(SEEDS), method="ft"), own=0, before=[STAGE] * 3)
    (found,) = costs(planned, STORE)
    assert found.seconds.mid == pytest.approx(0.3 * (3 * 30 + 9))
    assert found.bases == {Basis.SCALED: 1 + 3, Basis.SAME_STUDENT: 6}


def test_each_device_has_its_own_estimate():
    measure(trial("resnet8"), own=2)
    measure(trial("resnet8", seed=1), own=7, device="Napier's bones")
    found = costs(plan(methods="[scratch]", pairs="[{teacher: resnet20, student: resnet8}]"), STORE)
    assert {entry.device: entry.seconds.mid for entry in found} == {DEVICE: 19 * 2, "Napier's bones": 19 * 7}


def test_what_a_gpu_trains_at_once_takes_as_long_as_it_took_together():
    """And not as long as one after the other, as which its records have it."""
    measure(trial("resnet8"), own=4, elapsed_s=2)
    assert cost(methods="[scratch]", pairs="[{teacher: resnet20, student: resnet8}]").seconds.mid == 19 * 2


def test_so_do_stages_that_a_gpu_trains_at_once():
    planned = plan(SEEDS)
    measure(planned.teachers[0].spec, own=0)
    before = [{**STAGE, "elapsed_s": STAGE["train_s"] / 2}] * 3
    measure(trial("resnet8", planned=planned, method="ft"), own=0, before=before)
    (found,) = costs(planned, STORE)
    assert found.seconds.mid == (3 * 30 + 9) / 2


def test_a_broken_file_is_no_timing():
    measure(trial("resnet8"), own=2)
    for text in ("", "{", '{"stage": "main"}\n'):
        (STORE.folder(trial("resnet8").id) / "curves.jsonl").write_text(text)
        assert read_timings(STORE) == {}


# What real trainings leave


def test_a_finished_training_counts_with_its_stages(undisturbed):
    timings = read_timings(undisturbed.store)
    assert timings.keys() == {record.parent.name for record in undisturbed.store.root.glob("trials/*/record.json")}
    for name, timing in timings.items():
        record = json.loads((undisturbed.store.folder(name) / "record.json").read_text())
        total = (timing.own_s + timing.data_s + timing.teacher_s) * timing.epochs
        of_teacher = sum(stage.own_s + stage.shared_s for stage in timing.stages)
        assert total + of_teacher == pytest.approx(record["train_s"])
        assert bool(of_teacher) == (record["method"] == "ft")
        assert timing.evaluation_s > 0
        assert timing.epochs == record["epochs"] + 2 * (record["method"] == "fitnets")
        assert timing.device == record["environment"]["device"]


def test_an_interrupted_run_leaves_what_an_estimate_needs(lab, one_epoch_a_run):
    """A teacher's first epoch is enough: MACs tell the rest."""
    suite = lab.suite()
    assert not lab.run(suite, **one_epoch_a_run)
    (found,) = costs(lab.plan(suite), lab.store)
    assert found.seconds.low > 0
    assert (found.students, found.teachers, found.unknown, found.measured) == (2, 1, 0, 1)
    assert found.bases == {Basis.MEASURED: 1, Basis.SCALED: 2}
    assert lab.store.macs()["stripes"].keys() == {"resnet8", "wrn_10_1"}


def test_a_stage_that_is_kept_costs_nothing(finished):
    from conftest import MIXED

    methods = [{"ft": {"paraphraser_epochs": 2, "beta": 1}}]
    planned = finished.plan(finished.suite(**{**MIXED, "methods": methods, "seeds": [0, 1]}))
    assert "  stage ft.paraphraser of wrn_10_1: 1 done, 1 missing\n" in catalogue.plan_as_text(planned, [], None)
    told_stages = catalogue.plan_as_json(planned, [], None)["stages"]
    assert [(stage["seed"], stage["status"]) for stage in told_stages] == [(0, "done"), (1, "missing")]
    (found,) = costs(planned, finished.store)
    assert (found.students, found.stages, found.bases) == (2, 1, {Basis.MEASURED: 3})


def test_what_is_done_costs_nothing(finished):
    from conftest import MIXED

    assert costs(finished.plan(finished.suite(**MIXED)), finished.store) == []


# In words


def estimate(seconds: tuple[float, float, float], **changes: Any):
    from kdbench.runner.cost import Cost

    given = {
        "device": DEVICE,
        "students": 11,
        "teachers": 1,
        "stages": 0,
        "bases": {Basis.MEASURED: 8, Basis.SCALED: 4},
        "measured": 3,
    }
    return Cost(seconds=Span(*seconds), **{**given, **changes})


def test_an_estimate_in_words():
    assert estimate_text(estimate((7260, 5000, 9000))) == (
        "about 2.0 h (83 min to 2.5 h) on Abacus for 11 students and 1 teacher: 8 as measured, 4 scaled by MACs; from 3 "
        "measured in this directory."
    )
    assert estimate_text(estimate((45, 45, 45), beside_others=2)).endswith(
        "from 3 measured in this directory, 2 of them while other jobs trained on the machine."
    )
    assert "for 11 students, 1 teacher and 5 teacher stages: 12 as measured, 5 of unknown" in estimate_text(
        estimate((7260, 5000, 9000), stages=5, bases={Basis.MEASURED: 12})
    )
    assert estimate_text(estimate((45, 45.1, 45.2), students=1, teachers=0, bases={Basis.MEASURED: 1}, measured=1)) == (
        "about 45 s on Abacus for 1 student: 1 as measured; from 1 measured in this directory."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.6, "1 s"), (119, "119 s"), (150, "2.5 min"), (7199, "120 min"), (40_000, "11 h"), (400_000, "4.6 days")],
)
def test_a_duration_has_two_digits(seconds, words):
    assert f"about {words} on" in estimate_text(estimate((seconds,) * 3))


# Several devices at once


def test_several_devices_train_at_once_what_a_run_splits_among_them():
    """The teacher first, then each seed's students on a device, or their halves on two."""
    measure(trial("resnet20"), own=60, data=10, epoch=9)
    for student in ("resnet8", "resnet14"):
        measure(trial(student), own=20, data=10)
        measure(trial(student, "kd"), own=20, data=10, teacher=10)
    (one,) = costs(plan(), STORE)
    assert (one.devices, one.devices_s) == (1, None)
    teacher, begun, anew = JOB_S + 70, JOB_S + 9 * (4 * 20 + 10 + 10), JOB_S + 10 * (4 * 20 + 10 + 10)
    found = {devices: costs(plan(), STORE, devices=devices)[0].devices_s for devices in (2, 4)}
    assert found[2] == pytest.approx(teacher + max(begun, anew))
    assert found[4] == pytest.approx(teacher + JOB_S + 10 * (2 * 20 + 10 + 10))
    assert estimate_text(estimate((45, 45, 45), devices=2, devices_s=150.0)).endswith(
        "On 2 devices of that speed at once, with jobs split as `kdbench run` splits them: about 2.5 min."
    )
    assert estimate_text(estimate((45, 45, 45), stages=5, devices=2, devices_s=150.0)).endswith(
        "about 2.5 min, with a guess for those of unknown length."
    )


@pytest.mark.parametrize(("text", "names"), [("cuda:0, cuda:3", 2), ("cpu:3", 3), ("auto", 1), ("cuda", 1)])
def test_places_are_counted_without_their_devices(text, names):
    assert len(place_names(text)) == names


@pytest.mark.parametrize(
    ("text", "word"),
    [("gpu0,gpu1", "gpu0"), ("cuda:0,cuda:one", "cuda:one"), ("cuda:0,", ""), ("meta", "meta"), ("cuda:0,all", "all")],
)
def test_a_word_that_names_no_device_is_no_place(text, word):
    with pytest.raises(KdbenchError, match=f"unknown device '{word}'"):
        place_names(text)


# What it costs to know


def test_an_estimate_builds_no_model(monkeypatch):
    import torch

    STORE.note_macs("sums", {"resnet8": 100, "resnet14": 300, "resnet20": 900})
    measure(trial("resnet8"), own=2)

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.nn.Module, "__init__", never)
    assert cost().unknown == 0


def test_the_help_of_the_command_imports_nothing_heavy():
    script = "import sys\nfrom kdbench.cli import app\napp(['plan', '--help'], standalone_mode=False)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "yaml", "kdbench.runner.cost"} & set(loaded)
