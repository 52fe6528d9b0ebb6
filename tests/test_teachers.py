"""Teachers that had a teacher of their own, several teachers at once, and teachers that take images in their own way."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import CLASSES, Lab, Said
from invariants.probes import only, statuses
from torchvision.transforms import v2

from kdbench import Batch, KdbenchError, Losses, Method, Outputs, kd_divergence, load_results, load_student
from kdbench.cli.trials import _used
from kdbench.method.specs import teacher_label, teachers_label
from kdbench.models import build_model
from kdbench.models.folding import folded
from kdbench.models.own_input import OwnInput
from kdbench.models.weights import WEIGHTS
from kdbench.results.merge import Action, plan_merge
from kdbench.results.trial_folder import stale, trial_folders
from kdbench.runner.plan import Rerun
from kdbench.runner.run import Options, execute
from kdbench.spec.trial import NetworkInput, Normalisation, TrialSpec
from kdbench.suite.suite import Suite
from kdbench.training.evaluation import error_pct

ASSISTANT = {"model": "wrn_10_1", "method": {"kd": {"temperature": 2}}, "teacher": "wrn_10_2"}
CHAIN: dict[str, Any] = {
    "methods": ["scratch", "kd", "dgkd"],
    "recipe": {"epochs": 1, "schedule": {}},
    "teacher": {"recipe": {"epochs": 2, "schedule": {"milestones": [1]}}},
    "pairs": [
        {"teacher": {"model": "resnet8", "method": "at+kd", "teacher": ASSISTANT}, "student": "resnet8", "without": ["dgkd"]},
        {"teacher": ["wrn_10_2", ASSISTANT], "student": "resnet8", "without": ["kd"]},
    ],
    "keep_students": True,
}
"""Three levels of teachers, and a student of two of them."""

TWO = ["wrn_10_2", "wrn_10_1"]
ASSISTED = "wrn_10_1 (kd (temperature=2) from wrn_10_2)"
LARGE, MIDDLE, SMALL = range(3)
"""Of the teachers of `CHAIN`, each after its own."""


@pytest.fixture(scope="module")
def chain(images: Any, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab in which `CHAIN` ran from start to end. Read it, and leave it as it is."""
    lab = Lab(tmp_path_factory.mktemp("chain"), images)
    assert lab.run(lab.suite(**CHAIN))
    return lab


def changed(lab: Lab, trial: TrialSpec, **keys: Any) -> None:
    """Change keys of a trial's record."""
    file = lab.file(trial)
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def copied(lab: Lab, source: Lab) -> Suite:
    """The suite of a lab of one's own in which `CHAIN` is done."""
    shutil.copytree(source.store.root, lab.store.root)
    return lab.suite(**CHAIN)


def test_teachers_stand_after_their_own_and_are_told_apart(lab: Lab) -> None:
    suite = lab.suite(**CHAIN)
    assert [teacher_label(teacher) for teacher in suite.teachers] == ["wrn_10_2", ASSISTED, f"resnet8 (at+kd from {ASSISTED})"]
    assert [teacher.depth for teacher in suite.teachers] == [0, 1, 2]
    assert suite.pairs == ((f"resnet8 (at+kd from {ASSISTED})", "resnet8"), (f"wrn_10_2 and {ASSISTED}", "resnet8"))
    assert [teachers_label(trial) for trial in suite.trials if trial.teacher] == [teacher for teacher, _ in suite.pairs]
    assert all(teacher.recipe.epochs == 2 and teacher.seed == 0 for teacher in suite.teachers)
    born_again = lab.suite(methods=["kd"], pairs=[{"teacher": {**ASSISTANT, "method": "kd"}, "student": "resnet8"}])
    student = lab.suite(methods=["kd"], pairs=[{"teacher": "wrn_10_2", "student": "wrn_10_1"}])
    assert born_again.teachers[1].id == student.trials[0].id, "a teacher is the trial that it is as a student"


def test_a_trial_without_any_of_it_has_the_spec_that_it_had(lab: Lab) -> None:
    plain, *_ = lab.suite().trials
    assert not {"other_teachers", "input"} & plain.model_dump(mode="json").keys()
    several = only(lab.suite(**CHAIN), "dgkd")
    assert TrialSpec.model_validate(several.model_dump(mode="json")).id == several.id
    swapped = {**CHAIN, "pairs": [{**CHAIN["pairs"][1], "teacher": [ASSISTANT, "wrn_10_2"]}]}
    assert only(lab.suite(**swapped), "dgkd").id != several.id


def test_records_name_all_teachers_and_say_whose_the_numbers_are(chain: Lab) -> None:
    suite = chain.suite(**CHAIN)
    large, middle, small = (chain.record(teacher) for teacher in suite.teachers)
    record = chain.record(only(suite, "dgkd"))
    assert record.teacher == f"wrn_10_2 and {ASSISTED}"
    assert record.teachers_sha256 == (large.weights_sha256, middle.weights_sha256)
    assert record.teacher_error_pct == large.test_error_pct
    assert any("those of the first, wrn_10_2" in note for note in record.notes)
    assert (middle.teacher, middle.teacher_weights_sha256) == ("wrn_10_2", large.weights_sha256)
    assert small.teachers_sha256 == (middle.weights_sha256,)
    frame = load_results(chain.store.root)
    teachers = set(frame[frame["role"] == "teacher"]["trial"])
    assert teachers == {teacher.id for teacher in suite.teachers}
    assert _used([str(chain.root / "tiny.yaml")], chain.store.root, []) == set(frame["trial"])


def test_a_student_of_a_trained_teacher_learns_as_from_its_weights_in_a_file(lab: Lab, chain: Lab) -> None:
    suite = chain.suite(**CHAIN)
    file = chain.store.folder(suite.teachers[SMALL].id) / WEIGHTS
    pairs = [{"teacher": {"model": "resnet8", "weights": str(file)}, "student": "resnet8"}]
    from_file = lab.suite(**{**CHAIN, "methods": ["kd"], "pairs": pairs})
    lab.run(from_file)
    kd = only(suite, "kd")
    assert lab.record(from_file.trials[0]).weights_sha256 == chain.record(kd).weights_sha256


class OfTheSecond(Method):
    """KL(softmax(z_2) || softmax(z_s)) of the second teacher alone."""

    reads = ("logits",)
    several_teachers = True

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        (second,) = teacher.others
        return {"divergence": kd_divergence(student.logits, second.logits, 4.0)}


class OfTheFirst(Method):
    """KL(softmax(z_t) || softmax(z_s))."""

    reads = ("logits",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"divergence": kd_divergence(student.logits, teacher.logits, 4.0)}


def test_the_second_of_two_teachers_teaches_what_it_teaches_alone(lab: Lab, another: Lab, register: Callable[..., None]) -> None:
    register("of_the_second", OfTheSecond)
    register("of_the_first", OfTheFirst)
    settings = {"recipe": {"epochs": 2}, "teacher": {"recipe": {"epochs": 1, "schedule": {"milestones": []}}}}
    pairs = [{"teacher": TWO, "student": "resnet8"}]
    both = lab.suite(methods=["scratch", "of_the_second", "dgkd"], pairs=pairs, **settings)
    lab.run(both)
    alone = another.suite(methods=["of_the_first"], pairs=[{"teacher": TWO[1], "student": "resnet8"}], **settings)
    another.run(alone)
    second = lab.record(only(both, "of_the_second"))
    assert second.weights_sha256 == another.record(alone.trials[0]).weights_sha256
    by_itself = another.suite(methods=["dgkd"], pairs=pairs, **settings)
    another.run(by_itself)
    assert another.outcomes(by_itself).items() <= lab.outcomes().items(), "a student of two teachers learns the same beside others"


def test_killed_at_each_level_and_run_again_it_comes_to_the_same_end(lab: Lab, chain: Lab, one_epoch_a_run: dict[str, Any]) -> None:
    suite = lab.suite(**CHAIN)
    runs = 0
    while not lab.run(suite, **one_epoch_a_run, lanes=1 + runs % 2):
        runs += 1
    assert runs > 6, "an epoch of each teacher, and of each group of students"
    assert lab.outcomes() == chain.outcomes()


def test_a_trial_is_stale_when_any_teacher_below_it_has_changed(lab: Lab, chain: Lab) -> None:
    suite = copied(lab, chain)
    large, middle, small = suite.teachers
    changed(lab, large, weights_sha256="other")
    assert [planned.status for planned in lab.plan(suite).teachers] == ["done", "stale", "stale"]
    assert statuses(lab, suite) == {"scratch": "done", "kd": "stale", "dgkd": "stale"}
    assert {*stale(trial_folders(lab.store.root))} == {middle.id, only(suite, "dgkd").id}, "by the records alone"
    changed(lab, large, weights_sha256=chain.record(large).weights_sha256)
    changed(lab, middle, weights_sha256="other")
    assert statuses(lab, suite) == {"scratch": "done", "kd": "stale", "dgkd": "stale"}, "the second teacher counts"
    changed(lab, middle, weights_sha256=chain.record(middle).weights_sha256)
    changed(lab, small, method_code="other")
    assert statuses(lab, suite) == {"scratch": "done", "kd": "stale", "dgkd": "done"}
    assert lab.run(suite) and lab.outcomes() == chain.outcomes()


def test_a_chain_is_merged_teachers_first_and_clashes_with_other_weights_of_any_teacher(lab: Lab, chain: Lab) -> None:
    suite = lab.suite(**CHAIN)
    plan = plan_merge(lab.store.root, [chain.store.root])
    order = [step.theirs.trial for step in plan.steps]
    assert {step.action for step in plan.steps} == {Action.COPY}
    assert sorted(suite.teachers, key=lambda teacher: order.index(teacher.id)) == list(suite.teachers)
    copied(lab, chain)
    changed(lab, suite.teachers[MIDDLE], weights_sha256="other")
    clashing = {step.theirs.trial for step in plan_merge(lab.store.root, [chain.store.root]).of(Action.CLASH)}
    assert clashing >= {suite.teachers[SMALL].id, only(suite, "dgkd").id}, "of which it is a teacher"


def test_only_the_teachers_that_are_needed_are_trained_again(lab: Lab, chain: Lab) -> None:
    suite = copied(lab, chain)
    large, middle, _ = suite.teachers
    lab.file(large, WEIGHTS).unlink()
    lab.store.discard(only(suite, "kd").id)
    before = lab.file(large).stat().st_mtime_ns
    assert lab.run(suite) and lab.outcomes() == chain.outcomes()
    assert lab.file(large).stat().st_mtime_ns == before, "the teacher of a teacher that is there is not needed"
    lab.file(middle, WEIGHTS).unlink()
    lab.store.discard(only(suite, "kd").id)
    assert lab.run(suite, rerun=Rerun.WEIGHTS) and lab.outcomes() == chain.outcomes()


def test_a_teacher_that_fails_takes_along_whoever_needs_it(lab: Lab) -> None:
    diverges = {"recipe": {"epochs": 1, "schedule": {}, "optimiser": {"lr": 1e30}}}
    suite, said = lab.suite(**{**CHAIN, "teacher": diverges}), Said()
    assert execute(suite, lab.store, options=Options(device="cpu"), progress=said)
    assert [planned.status for planned in lab.plan(suite).teachers] == ["failed", "missing", "missing"]
    assert statuses(lab, suite) == {"scratch": "done", "kd": "missing", "dgkd": "missing"}
    assert "the teacher wrn_10_2 has failed: its students are left for another run." in said.lines
    assert f"the teacher {ASSISTED} was not trained: its students are left for another run." in said.lines


def test_what_a_chain_learns_from_teachers_alone_is_trained_at_each_level(lab: Lab) -> None:
    ft = {"ft": {"paraphraser_epochs": 1}}
    pairs = [{"teacher": {"model": "wrn_10_1", "method": ft, "teacher": "wrn_10_2"}, "student": "resnet8"}]
    suite = lab.suite(methods=[ft], pairs=pairs, recipe={"epochs": 1, "schedule": {}}, stages="per-teacher")
    assert [entry.stage.teacher.student for entry in lab.plan(suite).stages] == ["wrn_10_2", "wrn_10_1"]
    assert lab.run(suite)
    assert [len(list(lab.file(teacher, "stages").iterdir())) for teacher in suite.teachers] == [1, 1]
    assert statuses(lab, suite) == {"ft": "done"} and suite.teachers[1].stages == "per-teacher"


OWN = {"normalise": {"mean": [0.2], "std": [0.7]}, "size": 16}


@pytest.mark.parametrize("size", [12, 5])
def test_a_network_with_an_input_of_its_own_sees_pixels_normalised_and_resized_its_way(size: int) -> None:
    torch.manual_seed(0)
    network = build_model("resnet8", num_classes=CLASSES, in_channels=3).eval()
    own = NetworkInput(normalise=Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)), size=size)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    wrapped = OwnInput(network, own, mean=mean, std=std).eval()
    pixels = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        seen = v2.functional.resize(pixels, [size, size], antialias=True)
        expected = network(v2.functional.normalize(seen, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
        found = wrapped(v2.functional.normalize(pixels, list(mean), list(std)))
        for ours, theirs in zip(found.tensors(), expected.tensors(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        thin, norms = folded(wrapped, image_shape=(3, 8, 8))
        assert norms > 0
        torch.testing.assert_close(thin(pixels).logits, wrapped(pixels).logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.classify(found.pooled), expected.logits, rtol=1e-3, atol=1e-4)
    assert {name.removeprefix("network.") for name in wrapped.state_dict()} == {*network.state_dict()}


def test_a_teacher_from_elsewhere_has_the_error_that_it_had_there(lab: Lab, another: Lab) -> None:
    """Its images were normalised with other numbers."""
    first = lab.suite(methods=["kd"], dataset={"mean": [0.3], "std": [0.05]})
    lab.run(first)
    (teacher,) = first.teachers
    weights = {"model": "wrn_10_1", "weights": str(lab.file(teacher, WEIGHTS))}
    error = {}
    for name, own in {"ours": {}, "its own": {"normalise": {"mean": [0.3], "std": [0.05]}}}.items():
        suite = another.suite(methods=["kd"], pairs=[{"teacher": {**weights, **own}, "student": "resnet8"}])
        assert another.run(suite)
        error[name] = another.record(suite.teachers[0]).test_nll
    assert error["its own"] == pytest.approx(lab.record(teacher).test_nll, rel=1e-4)
    assert error["ours"] != pytest.approx(error["its own"], rel=1e-3)


def test_a_teacher_with_an_input_of_its_own_is_trained_surveyed_kept_and_loaded(lab: Lab) -> None:
    pairs = [{"teacher": {"model": "wrn_10_1", **OWN}, "student": "resnet8"}]
    methods = ["kd", {"ft": {"paraphraser_epochs": 1}}, "kdpp"]
    suite = lab.suite(methods=methods, pairs=pairs, recipe={"epochs": 1, "schedule": {}})
    assert lab.run(suite) and {*statuses(lab, suite).values()} == {"done"}
    (teacher,) = suite.teachers
    assert teacher.label == f"wrn_10_1 ({', '.join(teacher.input.labels)})" and teacher.input.labels[1] == "16 px"
    plain = lab.suite(methods=methods).teachers[0]
    assert teacher.id != plain.id
    builder = lab.builder(suite)
    network = load_student(lab.store.folder(teacher.id))
    errors = error_pct(network, builder.test_data, precision="fp32")
    assert errors == pytest.approx(lab.record(teacher).test_error_pct)
    assert builder.shapes(*teacher.network).features[0][1:] == (16, 16)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            {"model": "resnet8", "method": "kd"},
            "teacher: kd learns from a teacher. Give the teacher one of its own: `teacher: NAME`.",
        ),
        (
            {"model": "resnet8", "method": "scratch", "teacher": "wrn_10_1"},
            "teacher: scratch learns from no teacher. Take `teacher` out, or give another `method`, such as kd.",
        ),
        (
            {"model": "resnet8", "teacher": "wrn_10_1"},
            "teacher: the teacher has a teacher, and no method that learns from it. Give one, such as `method: kd`.",
        ),
        (
            {"model": "resnet8", "weights": "w.pth", "method": "kd", "teacher": "wrn_10_1"},
            "teacher: a teacher with `weights` is used as it is, and nothing trains it. Take `method` and `teacher` out, or "
            "`weights`.",
        ),
        ({"model": "resnet8", "method": "kdd", "teacher": "wrn_10_1"}, "teacher.method: unknown method 'kdd'. Did you mean"),
        ({"model": "resnet8", "method": "kd", "teacher": "resnet9"}, "teacher.teacher: unknown model 'resnet9'."),
        (
            {"model": "resnet8", "method": {"kd": {"alpha": 3}}, "teacher": "wrn_10_1"},
            "teacher.method.kd.alpha: must be less than or equal to 1 (got 3).",
        ),
        (
            {"model": "resnet8", "method": "simkd", "teacher": "wrn_10_1"},
            "teacher: simkd predicts with a part of its own beside the network, and a teacher is its network alone. Give another "
            "`method`.",
        ),
        (
            {"model": "resnet8", "method": "kd", "teacher": TWO},
            "teacher.method: kd learns from one teacher, and here are 2. Give it one of them.",
        ),
        (
            TWO,
            "teacher: kd learns from one teacher, and here are 2. Leave the method out of this pair with `without: [kd]`, or give "
            "the pair one teacher.",
        ),
        (["wrn_10_1", "wrn_10_1"], "teacher[1]: the teacher wrn_10_1 is named twice. Name each once."),
        (["wrn_10_1", {"modle": "resnet8"}], "teacher[1].modle: unknown key. Did you mean 'model'?"),
        ([], "teacher: must not be empty."),
        ({"model": "resnet8", "size": 0}, "teacher.size: must be greater than 0 (got 0)."),
        ({"model": "resnet8", "normalise": {"mean": [0.5]}}, "teacher.normalise.std: this key is missing. Add it."),
        (
            {"model": "resnet8", "normalise": {"mean": [0.5], "std": [0]}},
            "teacher.normalise.std[0]: must be greater than 0 (got 0).",
        ),
        (
            {"model": "resnet8", "normalise": {"mean": [0.5], "std": [0.2, 0.2]}},
            "teacher: `normalise` has a mean for 1 channel and a std for 2 channels. Give one number for each channel.",
        ),
        (
            {"model": "resnet8", "normalise": {"mean": [0.5] * 3, "std": [0.2] * 3}},
            "teacher.normalise: the images have 1 channel, and here are numbers for 3. Give one number for each channel.",
        ),
        (
            ["resnet14", {"model": "resnet8", "size": 8}],
            "teacher[1].size: the images have 8x8 pixels already, so that it has no effect. Remove it.",
        ),
    ],
)
def test_a_teacher_that_cannot_be_is_refused_when_the_suite_is_read(lab: Lab, teacher: Any, message: str) -> None:
    with pytest.raises(KdbenchError) as refused:
        lab.suite(pairs=[{"teacher": teacher, "student": "resnet8"}])
    assert str(refused.value).startswith(f"{lab.root / 'tiny.yaml'}, pairs[0].{message}")


def test_what_only_the_images_tell_is_refused_before_anything_trains(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.suite.ground.Ground.image_shape", None)  # as of a data set that only `load` knows
    refused = {
        "normalise: the images have 1 channel, and here are numbers for 3. Give one number for each channel.": {
            "model": "resnet8",
            "normalise": {"mean": [0.5] * 3, "std": [0.2] * 3},
        },
        "Give the teacher another `method`, or another teacher to learn from.": {
            "model": "wrn_10_1",
            "method": "fsp",
            "teacher": "wrn_10_2",
        },
    }
    for message, teacher in refused.items():
        suite = lab.suite(pairs=[{"teacher": teacher, "student": "resnet8"}])
        with pytest.raises(KdbenchError) as problem:
            lab.run(suite)
        assert str(problem.value).endswith(message)
    assert not list(lab.store.root.glob("trials/*"))
