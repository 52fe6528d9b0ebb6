"""Methods in a training loop of one's own: stages are trained first, as a suite trains them, and losses are refused before."""

import copy
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from conftest import Lab

from kdbench import (
    SGD,
    AdamW,
    Batch,
    KdbenchError,
    Method,
    Stage,
    View,
    build_method,
    build_model,
    outputs_of,
    rotations,
    train_stages,
)
from kdbench.method.interface import METHODS
from kdbench.models.weights import WEIGHTS, read_checkpoint, read_weights
from kdbench.streams import generator, seeded
from kdbench.suite.teacher_stages import teacher_stages

STAGED = {"ft": {"paraphraser_epochs": 1}, "ft_repdistiller": {"paraphraser_epochs": 1}, "fitnets": {"hint_epochs": 1}}


def networks():
    torch.manual_seed(0)
    teacher, student = (build_model(name, num_classes=3, in_channels=1) for name in ("wrn_10_1", "resnet8"))
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    with torch.no_grad():
        target = teacher.eval()(images)
    return teacher, student, target, Batch(images, labels, torch.arange(8), 0, 1, torch.Generator())


def with_two_heads(outputs):
    """As DeiT's method needs them."""
    return replace(outputs, heads=(outputs.logits, outputs.logits))


def made(name, student, target, batch, **parameters):
    return build_method(name, student=student(batch.images), teacher=target, image_shape=(1, 8, 8), **parameters)


def test_losses_are_refused_before_the_stages_of_every_method_that_has_some():
    teacher, student, target, batch = networks()
    staged = []
    for name in METHODS.names():
        with torch.no_grad():
            method = build_method(
                name,
                student=with_two_heads(student(batch.images)),
                teacher=target,
                labels=batch.labels,
                teacher_parts=teacher.teacher_parts(),
                image_shape=(1, 8, 8),
            )
        if [stage for _, stage in method.stages() if stage.epochs]:
            staged.append(name)
            with pytest.raises(KdbenchError, match=rf"not trained yet: {name}\.\w+\. .*kdbench\.train_stages"):
                method.losses(student(batch.images), target, batch)
    assert {"ft", "ft_repdistiller", "fitnets", "ab", "fsp"} <= set(staged)


def test_a_paraphraser_is_bitwise_the_one_of_a_suite(lab: Lab):
    suite = lab.suite(methods=[{"ft": {"paraphraser_epochs": 2}}], pairs=[{"teacher": "wrn_10_1", "student": "resnet8"}])
    lab.run(suite)
    (trial,) = suite.trials
    (stage,), spec, builder = teacher_stages(trial), trial.teacher, lab.builder(suite)
    folder = lab.store.folder(spec.id)
    teacher = builder.restored(spec, read_weights(folder / WEIGHTS, sha256=lab.record(spec).weights_sha256))
    kept = read_checkpoint(next((folder / "stages").glob("*.pt")))["modules"]
    data, epochs = builder.training_data(spec.recipe.augmentation), []

    class Batches:
        """The batches of a suite, one epoch after the other."""

        def __iter__(self):
            epochs.append(len(epochs))
            draws = data.epoch(generator(spec.stream_seed, "batches", 0, epochs[-1]), batch_size=spec.recipe.batch_size)
            return (draw() for draw in draws)

    images = data.first(8)
    with torch.no_grad(), seeded(stage.stream_seed, "adapters", "ft"):
        method = build_method("ft", student=teacher.eval()(images), teacher=teacher(images), paraphraser_epochs=2)
    train_stages(method, teacher, Batches(), seed=stage.stream_seed)
    (_, trained), *_ = method.stages()
    assert epochs == [0, 1]
    for module, weights in zip(trained.modules, kept, strict=True):
        assert module.state_dict().keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(("name", "optimiser"), [*((name, SGD(lr=0.1)) for name in STAGED), ("fitnets", AdamW(lr=0.001))])
def test_what_stages_trained_is_frozen_and_all_else_is_left_as_it_was(name, optimiser):
    teacher, student, target, batch = networks()
    student.classifier.bias.requires_grad_(False)
    method = made(name, student, target, batch, **STAGED[name])
    before, state = copy.deepcopy(teacher.state_dict()), torch.get_rng_state()
    train_stages(method, teacher, [(batch.images, batch.labels)] * 2, student=student, optimiser=optimiser)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in teacher.state_dict().items())
    assert not teacher.training and all(parameter.requires_grad for parameter in teacher.parameters())
    assert student.training and not student.classifier.bias.requires_grad and student.classifier.weight.requires_grad
    staged = {id(p) for _, stage in method.stages() for module in stage.modules for p in module.parameters()}
    assert staged and all(parameter.requires_grad == (id(parameter) not in staged) for parameter in method.parameters())
    assert not any(module.training for _, stage in method.train().stages() for module in stage.modules)
    assert all(parameter.grad is None for network in (teacher, student, method) for parameter in network.parameters())
    sum(method.losses(student(batch.images), target, batch).values()).backward()
    loaded = made(name, student, target, batch, **STAGED[name])
    loaded.load_state_dict(method.state_dict())
    assert loaded.losses(student(batch.images), target, batch).keys() == method.losses(student(batch.images), target, batch).keys()


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("kd", {}, "no stage that is still to be trained"),
        ("fitnets", {}, "fitnets.hint trains the student. Give it as student="),
        ("fitnets", {"student": True}, "fitnets.hint has no settings of its own"),
        ("ft", {"teacher": torch.nn.Flatten()}, "the teacher is a Flatten and no Network"),
        ("ft", {"loader": []}, "the loader gave no batches"),
        ("ft", {"optimiser": SGD(lr=1), "paraphraser_lr": 1e30}, r"(the loss is|not finite).*; lower the learning rate of this"),
    ],
)
def test_what_cannot_be_trained_is_told(name, changes, told):
    teacher, student, target, batch = networks()
    lr = {"paraphraser_lr": changes.pop("paraphraser_lr")} if "paraphraser_lr" in changes else {}
    method = made(name, student, target, batch, **lr)
    given = {"teacher": teacher, "loader": [(batch.images, batch.labels)] * 3, **changes}
    if changes.get("student"):
        given["student"] = student
    with pytest.raises(KdbenchError, match=told):
        train_stages(method, given.pop("teacher"), given.pop("loader"), **given)


def test_a_survey_in_a_loop_of_ones_own_finds_the_class_means():
    teacher, student, target, batch = networks()
    method = made("kdpp", student, target, batch)
    with pytest.raises(KdbenchError, match=r"not trained yet: kdpp\.class_means"):
        method.losses(student(batch.images), target, batch)
    whole = [(batch.images[:5], batch.labels[:5]), (batch.images[5:], batch.labels[5:])]
    with pytest.raises(KdbenchError, match=r"kdpp\.class_means sees each training image once.*survey_loader"):
        train_stages(method, teacher, [])
    with pytest.raises(KdbenchError, match="the survey_loader gave no batches"):
        train_stages(method, teacher, [], survey_loader=[])
    train_stages(method, teacher, [], survey_loader=whole)
    expected = torch.stack([target.pooled[batch.labels == label].mean(0) for label in range(3)])
    torch.testing.assert_close(method.parts["kdpp"].class_means.means, expected)
    terms = method.losses(student(batch.images), target, batch)
    loaded = made("kdpp", student, target, batch)
    loaded.load_state_dict(method.state_dict())
    assert terms.keys() == loaded.losses(student(batch.images), target, batch).keys()


class Wide(Method):
    """Reads two views, in a stage and in the main training."""

    reads = ("logits",)
    views = ("strong", "rotations")
    teacher_stages: ClassVar[dict[str, tuple[str, ...]]] = {"rehearsal": ()}

    def build(self, pair):
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def stages(self):
        return (Stage("rehearsal", 1, self.rehearse, (self,), trains_student=False, optimiser=SGD(lr=0.1)),)

    def rehearse(self, student, teacher, batch):
        self.seen.append({name: view.images for name, view in batch.views.items()})
        return {"gap": sum((self.scale * view.logits).square().mean() for view in teacher.views.values())}

    def losses(self, student, teacher, batch):
        return {view: (student.views[view].logits - teacher.views[view].logits).square().mean() for view in self.views}


def test_views_in_a_loop_of_ones_own_are_the_users(monkeypatch):
    monkeypatch.setitem(METHODS._entries, "wide", replace(METHODS.entry("kd"), name="wide", value=Wide))
    teacher, student, target, batch = networks()
    method = made("wide", student, target, batch)
    strong = batch.images + 1
    with pytest.raises(KdbenchError, match="reads the view 'strong', which the loader does not give"):
        train_stages(method, teacher, [(batch.images, batch.labels)])
    train_stages(method, teacher, [(batch.images, batch.labels, batch.indices, strong)])
    (seen,) = method.parts["wide"].seen
    assert torch.equal(seen["strong"], strong)
    assert torch.equal(seen["rotations"][1::3], batch.images.flip(2, 3))
    views = {"strong": View(strong, batch.labels), "rotations": rotations(batch.images, batch.labels)}
    full = replace(batch, views=views)
    with pytest.raises(KdbenchError, match=r"wide reads the view 'strong', and it is missing\. Give Batch\(views="):
        method.losses(student(batch.images), target, full)
    with torch.no_grad():
        taught = outputs_of(teacher, full)
    terms = method.losses(outputs_of(student, full), taught, full)
    expected = (student(strong).logits - teacher(strong).logits).square().mean()
    torch.testing.assert_close(terms["wide.strong"], expected, rtol=1e-3, atol=1e-4)
