"""What a recipe may ask for beside SGD, steps, crop and flip: by formula, and against the libraries that the field uses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, Lab
from PIL import Image
from test_method_traps import batch as plain_batch
from test_method_traps import build, outputs
from torch import Tensor, nn

from kdbench import SGD, AdamW, Batch, KdbenchError, Losses, Method, Outputs, Pair
from kdbench.catalogue.show import shown
from kdbench.data import Loader, ResidentLoader, Split, StreamedLoader
from kdbench.data.distortion import operations
from kdbench.data.file_split import FileSplit
from kdbench.data.mixing import mix
from kdbench.method.composition import Composition
from kdbench.method.stages import ParameterGroup
from kdbench.spec.augmentation import Augmentation, RandAugment
from kdbench.spec.optimiser import Cosine, Schedule
from kdbench.spec.recipe import Recipe
from kdbench.spec.validation import validated
from kdbench.streams import generator
from kdbench.suite.recipes import merged, recipe_tree
from kdbench.suite.shipped import recipe_names
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.optimiser import Trained, build_optimiser
from kdbench.training.segments import MAIN, Position, segments
from kdbench.training.single import Single
from kdbench.training.stream import Stream

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PLAIN: dict[str, Any] = {"epochs": 10, "batch_size": 4, "optimiser": {"lr": 0.1}}

EVERYTHING: dict[str, Any] = {
    **TINY["recipe"],
    "epochs": 3,
    "optimiser": {"name": "adamw", "lr": 0.003, "betas": [0.8, 0.99], "weight_decay": 0.1, "decay_norms_and_biases": False},
    "schedule": {"name": "cosine", "final_lr": 1e-4, "warm_up_epochs": 1.5, "warm_up_lr": 1e-5, "update": "step"},
    "augmentation": {"pad": 1, "rand_augment": {}, "random_erasing": 0.5},
    "label_smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "gradient_clipping": 0.05,
    "moving_average": 0.7,
    "method_lr": 2.0,
    "method_weight_decay": 0.3,
}


def recipe(**changes: Any) -> Recipe:
    return validated(Recipe, merged(PLAIN, changes), source="x.yaml")


# Rates


@pytest.mark.parametrize("update", ["epoch", "step"])
@pytest.mark.parametrize("steps", [True, False])
def test_rates_are_those_of_timm(steps: bool, update: str) -> None:
    scheduler = pytest.importorskip("timm.scheduler")
    given = {"milestones": [3, 6, 9], "gamma": 0.5} if steps else {"name": "cosine", "final_lr": 0.01}
    schedule = recipe(schedule={**given, "warm_up_epochs": 2, "warm_up_lr": 0.001, "update": update}).schedule
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    warm_up = {"warmup_t": 2, "warmup_lr_init": 0.001}
    if steps:
        theirs = scheduler.StepLRScheduler(optimiser, decay_t=3, decay_rate=0.5, warmup_prefix=False, **warm_up)
    else:
        theirs = scheduler.CosineLRScheduler(optimiser, t_initial=10, lr_min=0.01, **warm_up)
    times = [step / 4 for step in range(40)] if update == "step" else list(range(10))
    for time in times:
        assert schedule.rate(0.1, time, 10) == pytest.approx(theirs._get_lr(time)[0], rel=1e-12)


def test_a_plain_schedule_is_what_it_was() -> None:
    assert [Schedule(milestones=(1, 3), gamma=0.3).rate(0.05, epoch, 5) for epoch in range(5)] == [
        0.05 * 0.3**passed for passed in (0, 1, 1, 2, 2)
    ]
    assert Cosine().rate(1.0, 5, 10) == pytest.approx(0.5)
    assert [Schedule(warm_up_epochs=4).rate(1.0, epoch, 9) for epoch in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_the_usual_name_takes_over_what_the_base_says_without_one() -> None:
    base = {"optimiser": {"lr": 0.1, "weight_decay": 1e-4, "nesterov": True}, "schedule": {"milestones": [1, 2]}}
    named = {"optimiser": {"name": "sgd", "lr": 0.05}, "schedule": {"name": "steps", "gamma": 0.5}}
    changed = recipe(**merged(base, named))
    assert changed.optimiser == SGD(lr=0.05, weight_decay=1e-4, nesterov=True)
    assert changed.schedule == Schedule(milestones=(1, 2), gamma=0.5)
    cosine = {"schedule": {"name": "cosine", "final_lr": 0.01}}
    assert merged(base, cosine)["schedule"] == cosine["schedule"], "of another name nothing is taken over"
    assert merged(cosine, {"schedule": {"name": "steps"}})["schedule"] == {"name": "steps"}


# What is trained, and how


class WithGroups(Method):
    """Has parameters that ask for a rate and a decay of their own."""

    def build(self, pair: Pair) -> None:
        self.slow = nn.Linear(pair.student.pooled[0], 1)
        self.other = nn.Linear(pair.student.pooled[0], 1)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return (ParameterGroup(self.slow, lr_factor=0.1, weight_decay=0.0),)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"size": (self.slow(student.pooled) + self.other(student.pooled)).square().mean()}


def test_a_training_does_all_that_its_recipe_says(lab: Lab, register: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays every step by the formulas: of mixing, the loss, the cut of the gradient, AdamW, the rates and the average."""
    register("with_groups", WithGroups)
    original, theory, seen = Single.train_step, Recipe.model_validate(EVERYTHING), []
    averages: dict[nn.Parameter, Tensor] = {}
    moments: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}

    def train_step(unit: Any, inputs: StepInputs) -> None:
        (lane,) = unit.lanes
        if "with_groups" not in lane.method.parts:
            original(unit, inputs)
            return
        method, student = lane.method.parts["with_groups"], lane.student
        before = {p: p.detach().clone() for p in (*student.parameters(), *method.parameters())}
        for parameter in student.parameters():
            averages.setdefault(parameter, parameter.detach().clone())
        number = len(seen)
        assert inputs.soft_labels is not None
        assert torch.allclose(inputs.soft_labels.sum(1), torch.ones(len(inputs)))
        assert torch.equal(inputs.labels, inputs.soft_labels.argmax(1)) or (inputs.soft_labels.max(1).values == 0.5).any()
        target = 0.9 * inputs.soft_labels + 0.1 / inputs.soft_labels.shape[1]
        summed = lane._sums.tensors["cross_entropy"].clone() if number % 3 else 0.0
        logits: list[Tensor] = []
        handle = student.register_forward_hook(lambda module, given, made: logits.append(made.logits.detach().clone()))
        original(unit, inputs)
        handle.remove()
        ce = -(target * logits[0].log_softmax(1)).sum(1).sum()
        torch.testing.assert_close((lane._sums.tensors["cross_entropy"] - summed).float(), ce)
        norm = torch.stack([p.grad.norm() for p in before if p.grad is not None]).norm()
        assert norm == pytest.approx(0.05, rel=1e-3)
        time = number // 3 + number % 3 / 3
        base = theory.schedule.rate(0.003, time, 3)
        for parameter, was in before.items():
            factor, decay = 1.0, 0.1 * (parameter.ndim > 1)
            if any(parameter is own for own in method.parameters()):
                is_slow = any(parameter is own for own in method.slow.parameters())
                factor, decay = (0.1 * 2.0, 0.0) if is_slow else (2.0, 0.3 * (parameter.ndim > 1))
            first, second = moments.get(parameter, (torch.zeros_like(was), torch.zeros_like(was)))
            first, second = 0.8 * first + 0.2 * parameter.grad, 0.99 * second + 0.01 * parameter.grad**2
            moments[parameter] = first, second
            corrected = (second / (1 - 0.99 ** (number + 1))).sqrt() + 1e-8
            expected = was * (1 - base * factor * decay) - base * factor * first / (1 - 0.8 ** (number + 1)) / corrected
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)
        for parameter, average in averages.items():
            averages[parameter] = 0.7 * average + 0.3 * parameter.detach()
        seen.append(base)

    monkeypatch.setattr(Single, "train_step", train_step)
    suite = lab.suite(methods=["with_groups"], recipe=EVERYTHING, keep_students=True)
    assert lab.run(suite)
    (trial,) = suite.trials
    record = lab.record(trial)
    assert record.status == "done" and len(seen) == 9
    for parameter, average in averages.items():  # what is kept and deployed
        torch.testing.assert_close(parameter.detach(), average, rtol=1e-4, atol=1e-6)
    assert [row["lr"] for row in lab.curves(trial)] == [seen[number] for number in (2, 5, 8)]
    assert any("moving average of the weights" in note for note in record.notes)
    assert any("class of the larger share" in note for note in record.notes)
    assert "AdamW lr 0.003, cosine, warm-up 1.5, RandAugment, erasing 0.5, mixup 0.8, CutMix 1" in record.recipe


def test_the_average_is_tested_and_the_weights_are_trained(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An average that hardly moves is tested as what the student was at the start, whatever it learns."""
    trained: list[Tensor] = []
    original = Lane.end_epoch

    def end_epoch(lane: Any) -> None:
        trained.append(torch.cat([p.detach().flatten().clone() for p in lane.student.parameters()]))
        original(lane)

    monkeypatch.setattr(Lane, "end_epoch", end_epoch)
    still = {"moving_average": 1 - 1e-9, "epochs": 3}
    suite = lab.suite(methods=["scratch"], recipe={**TINY["recipe"], **still})
    lab.run(suite)
    rows = lab.curves(suite.trials[0])
    assert len({row["test_error_pct"] for row in rows}) == 1, "the running statistics stand still, too"
    assert len({row["train_loss"] for row in rows}) == 3
    assert not torch.equal(trained[0], trained[1])


class Net(nn.Module):
    """Has a parameter of three dimensions that weight decay spares."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.token, self.fixed = nn.Parameter(torch.zeros(1, 1, 2)), nn.Parameter(torch.zeros(3, 3))

    def no_weight_decay(self) -> set[str]:
        return {"token"}


def test_decay_spares_norms_biases_and_what_a_network_names() -> None:
    net = Net()
    for settings in (SGD(lr=0.1, decay_norms_and_biases=False), AdamW(lr=0.1, decay_norms_and_biases=False)):
        built = build_optimiser(settings, [Trained(net)], fixed=[id(net.fixed)], device=torch.device("cpu"))
        decay = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
        assert decay.pop(id(net.layer.weight)) == settings.weight_decay
        assert set(decay.values()) == {0.0} and len(decay) == 4 and id(net.fixed) not in decay
    whole = build_optimiser(AdamW(lr=0.1), [Trained(net)], fixed=[], device=torch.device("cpu"))
    assert [group["weight_decay"] for group in whole.param_groups] == [0.01]


@pytest.mark.parametrize("grouped", [True, False])
def test_decay_spares_in_a_method_s_networks_what_it_spares_in_a_student(grouped: bool) -> None:
    class Peer(nn.Module):
        ce_weight = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.peer = Net()

        def stages(self) -> tuple[Any, ...]:
            return ()

        def parameter_groups(self) -> tuple[ParameterGroup, ...]:
            return (ParameterGroup(self.peer, lr_factor=0.5),) if grouped else ()

    peer: Any = Peer()
    spared = recipe(optimiser={"name": "adamw", "lr": 0.1, "decay_norms_and_biases": False})
    (main,) = segments(Composition({"peer": peer}), Net(), spared)
    built = build_optimiser(main.optimiser, main.trained, fixed=[], device=torch.device("cpu"))
    decay = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert decay[id(peer.peer.token)] == decay[id(peer.peer.norm.weight)] == 0 and decay[id(peer.peer.layer.weight)] == 0.01


# Mixing


@pytest.mark.parametrize("given", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_images_have_the_shares_that_their_labels_say(given: dict[str, float]) -> None:
    size = 6
    images = torch.eye(size)[:, :, None, None].expand(size, size, 8, 8).contiguous()  # one channel for each image
    labels, indices = torch.tensor([0, 1, 2, 0, 1, 1]), torch.arange(10, 10 + size)
    kinds = set()
    for seed in range(20):
        mixed = mix(images, labels, indices, recipe=recipe(**given), num_classes=4, seed=seed)
        shares = mixed.images.mean((2, 3))  # (B, of which image)
        torch.testing.assert_close(shares @ F.one_hot(labels, 4).float(), mixed.soft_labels)
        assert torch.equal(mixed.indices, indices[shares.argmax(1)]) and torch.equal(mixed.labels, labels[shares.argmax(1)])
        assert mixed.images.is_contiguous(memory_format=torch.channels_last)
        kinds.add("cutmix" if mixed.images.unique().numel() == 2 else "mixup")
        again = mix(images, labels, indices, recipe=recipe(**given), num_classes=4, seed=seed)
        assert all(map(torch.equal, mixed, again))
    assert kinds == set(given)


def test_a_batch_is_mixed_by_seed_epoch_and_number(files: list[Path]) -> None:
    def batches(seed: int, epoch: int, **settings: float) -> list[StepInputs]:
        stream = Stream(loader(files, streamed=False), recipe(**settings), seed, 3)
        return [load() for load in stream.batches(Position(MAIN, epoch), ("strong",))]

    def shares(seed: int, epoch: int) -> list[float]:
        mixed, plain = batches(seed, epoch, mixup=0.8), batches(seed, epoch)
        for one, other in zip(mixed, plain, strict=True):  # views are of images before they are mixed
            assert torch.equal(one.views["strong"].images, other.views["strong"].images)
            assert torch.equal(one.views["strong"].labels, other.labels)
        soft = [inputs.soft_labels for inputs in mixed if inputs.soft_labels is not None]
        return [float(labels[labels > 0].min()) for labels in soft]

    assert shares(0, 1) == shares(0, 1)
    assert len({*shares(0, 1), *shares(0, 2), *shares(1, 1)}) > 6, "of 9 batches"


# Images


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, random = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    found = [folder / f"{number}.png" for number in range(12)]
    for file in found:
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    return found


def loader(files: list[Path], *, streamed: bool, workers: int = 0, **settings: Any) -> Loader:
    labels = torch.arange(len(files)) % 3
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)
    if streamed:
        augmentation = Augmentation.model_validate({"pad": 0, "resized_crop": {"interpolation": "random"}, **settings})
        names, sizes = np.array([file.name.encode() for file in files]), np.array([file.stat().st_size for file in files])
        split = FileSplit(files[0].parent, names, sizes, labels, size=16, resize=16, channels=3, workers=workers)
        return StreamedLoader(split, mean=mean, std=std, device="cpu", augmentation=augmentation)
    augmentation = Augmentation.model_validate({"pad": 2, **settings})
    pixels = torch.stack([torch.from_numpy(np.asarray(Image.open(file)).copy()) for file in files])
    return ResidentLoader(Split(pixels, labels), mean=mean, std=std, device="cpu", augmentation=augmentation)


def drawn(images: Loader, *, batch_size: int = 5, strong: bool = False) -> list[Tensor]:
    """Images, labels and indices of an epoch, and with `strong` the strong view."""
    batches = images.epoch(generator(0, "x"), batch_size=batch_size, strong=generator(0, "strong") if strong else None)
    loaded = [draw() for draw in batches]
    parts = [(batch.images, batch.labels, batch.indices, *([batch.strong] if batch.strong is not None else [])) for batch in loaded]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


ALL: dict[str, Any] = {"rand_augment": {"layers": 3}, "random_erasing": 0.6, "strong": {"random_erasing": 0.5}}


@pytest.mark.parametrize("streamed", [False, True])
def test_each_choice_belongs_to_the_epoch_and_the_image(files: list[Path], streamed: bool) -> None:
    """Neither batches, nor processes, nor a view that others ask for change a pixel."""
    whole = drawn(loader(files, streamed=streamed, **ALL), batch_size=12, strong=True)
    others = [drawn(loader(files, streamed=streamed, **ALL), batch_size=4, strong=True)]
    others += [drawn(loader(files, streamed=True, workers=2, **ALL), strong=True)] if streamed else []
    assert all(torch.equal(one, other) for found in others for one, other in zip(whole, found, strict=True))
    alone = drawn(loader(files, streamed=streamed, **ALL))
    assert all(map(torch.equal, alone, whole[:3]))
    assert not torch.equal(whole[0], whole[3])


@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_turned_on_leaves_order_crop_and_flip_as_they_were(
    files: list[Path], streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = drawn(loader(files, streamed=streamed), strong=True)
    erased = drawn(loader(files, streamed=streamed, random_erasing=0.7), strong=True)
    changed = (erased[0] != plain[0]).any(1).flatten(1).float().mean(1)
    assert 0 < (changed > 0).sum() < 12 and changed.max() < 0.4
    assert all(map(torch.equal, erased[1:], plain[1:]))  # the strong view has settings of its own
    operated = drawn(loader(files, streamed=streamed, rand_augment={}), strong=True)
    assert not torch.equal(operated[0], plain[0]) and all(map(torch.equal, operated[1:], plain[1:]))
    monkeypatch.setattr("kdbench.data.distortion.operations", lambda *args, **options: lambda image: image)
    identity = drawn(loader(files, streamed=streamed, rand_augment={}), strong=True)
    assert all(map(torch.equal, identity[:3], plain[:3]))
    assert not torch.equal(identity[3], plain[3]), "the strong view had operations"
    none = drawn(loader(files, streamed=streamed, strong={"rand_augment": None}), strong=True)
    assert torch.equal(none[3], identity[3])


KINDS = [{"name": "torchvision", "magnitude": 30}, {"name": "timm", "magnitude": 10, "increasing": True}, {"name": "fixmatch"}]


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings["name"])
@pytest.mark.parametrize("mean", [(0.5,), (0.4, 0.5, 0.6)])
def test_every_rand_augment_takes_grey_and_coloured_images(settings: dict[str, Any], mean: tuple[float, ...]) -> None:
    """At the largest magnitude, too, where timm's posterise leaves no bit."""
    if settings["name"] == "timm":
        pytest.importorskip("timm")
    operate = operations(RandAugment(**settings), mean=mean)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels if len(mean) == 3 else pixels[..., 0])
    made = [operate(image) for _ in range(100)]
    assert {(one.size, one.mode) for one in made} == {(image.size, image.mode)}
    assert len({one.tobytes() for one in made}) > 30
    with pytest.raises(KdbenchError, match="images of 1 or 3 channels, and these have 4"):
        operations(RandAugment(**settings), mean=(0.5,) * 4)


# Bad input, and what is written


def test_what_is_not_used_is_no_part_of_the_recipe() -> None:
    before = {
        "epochs": 10,
        "batch_size": 4,
        "optimiser": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "nesterov": False},
        "schedule": {"milestones": [], "gamma": 0.1},
        "augmentation": {"pad": 4, "padding_mode": "zeros", "flip": True},
        "precision": "fp32",
        "compile": False,
        "evaluate_every": 1,
    }
    strict = recipe(precision="fp32")
    assert json.dumps(strict.model_dump(mode="json")) == json.dumps(before)
    assert strict.summary == "10 epochs, batch 4, lr 0.1 [2039]"
    assert recipe().model_dump() == {**strict.model_dump(), "precision": "default"}
    named = recipe(optimiser={"name": "sgd", "lr": 0.1}, schedule={"name": "steps"}, mixup=0, augmentation={"rand_augment": None})
    assert named == recipe()
    everything = Recipe.model_validate(EVERYTHING)
    assert Recipe.model_validate(everything.model_dump(mode="json")) == everything


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimiser": {"name": "adam"}}, "optimiser: unknown name 'adam'. Did you mean 'adamw'? Choose one of sgd, adamw."),
        (
            {"optimiser": {"name": "adamw", "lr": 0.1, "momentum": 0.9}},
            "optimiser.momentum: momentum is a key of sgd. adamw has lr, betas, eps, weight_decay, decay_norms_and_biases. Remove "
            "momentum, or choose another name.",
        ),
        (
            {"optimiser": {"lr": 0.1, "eps": 1}},
            "optimiser.eps: eps is a key of adamw. sgd has lr, momentum, weight_decay, nesterov,",
        ),
        ({"optimiser": {"name": "adamw", "lr": 0.1, "beta": [0, 1]}}, "optimiser.beta: unknown key. Did you mean 'betas'?"),
        (
            {"schedule": {"warm_up_lr": 0.01}},
            "schedule: warm_up_lr has no effect without `warm_up_epochs`; give both, or remove it.",
        ),
        (
            {"schedule": {"warm_up_epochs": 2, "warm_up_lr": 0}},
            "schedule: with a warm_up_lr of 0 the first epoch trains nothing; give a higher one",
        ),
        ({"schedule": {"update": "step"}}, "schedule: update: step has no effect on steps without a warm-up; give"),
        (
            {"epochs": 1, "schedule": {"warm_up_epochs": 1}},
            "a warm-up of 1 epoch does not end in 1 epoch; give one that is shorter",
        ),
        (
            {"schedule": {"warm_up_epochs": 10}},
            "schedule.warm_up_epochs: a warm-up of 10 epochs does not end in 10 epochs; give one",
        ),
        ({"schedule": {"name": "cosine", "final_lr": 1}}, "schedule.final_lr: 1 is above the learning rate 0.1; give a lower one."),
        (
            {"schedule": {"name": "cosine", "milestones": [1]}},
            "schedule.milestones: milestones is a key of steps. cosine has warm_up_epochs, warm_up_lr, update, final_lr. Remove",
        ),
        ({"schedule": {"final_lr": 0}}, "schedule.final_lr: final_lr is a key of cosine. steps has"),
        ({"mixup": 1, "cutmix_probability": 0.3}, "cutmix_probability chooses between mixup and CutMix; give both"),
        ({"augmentation": {"rand_augment": {"magnitude_std": 1}}}, "rand_augment: magnitude_std and increasing are keys of timm's"),
        ({"augmentation": {"rand_augment": {"name": "timm", "magnitude": 20}}}, "rand_augment: timm's magnitudes end at 10; give"),
        (
            {"augmentation": {"strong": {"rand_augment": {"name": "fixmatch", "magnitude": 3}}}},
            "magnitude has no effect",
        ),
    ],
)
def test_keys_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(KdbenchError) as refused:
        recipe(**given)
    assert message in str(refused.value)


@pytest.mark.parametrize("given", [{"mixup": 0.8}, {"cutmix": 1.0}])
@pytest.mark.parametrize(("name", "view"), [("crld", "strong"), ("kd+mlkd", "strong"), ("sskd", "rotations")])
def test_views_that_are_not_mixed_are_refused_beside_images_that_are(
    lab: Lab, given: dict[str, float], name: str, view: str
) -> None:
    with pytest.raises(KdbenchError) as refused:
        lab.suite(methods=["kd", name], recipe={**TINY["recipe"], **given})
    text = f"methods[1]: {name.split('+')[-1]} compares images with their view '{view}', which is not mixed, and the recipe mixes "
    assert f"{text}the images. Set `mixup: 0` and `cutmix: 0` in the recipe, or leave the method out of pairs[0] with" in str(
        refused.value
    )
    assert lab.suite(methods=["kd", name])


def test_a_teachers_views_are_refused_alike(lab: Lab) -> None:
    pairs = [{"student": "resnet8", "teacher": {"model": "resnet8", "method": "crld", "teacher": "wrn_10_1"}}]
    with pytest.raises(KdbenchError, match=r"teacher.method: crld compares images .*, or give another `method`\."):
        lab.suite(pairs=pairs, methods=["kd"], recipe={**TINY["recipe"], "mixup": 0.8})


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("byot", {"labels"}),
        ("dml", {"peer_cross_entropy"}),
        ("ffl", {"peer_cross_entropy", "fusion_cross_entropy"}),
        ("crld", {"strong_cross_entropy"}),
        ("mlkd", {"strong_cross_entropy"}),
    ],
)
def test_a_methods_own_cross_entropies_learn_what_the_students_does(name: str, terms: set[str]) -> None:
    student, teacher, plain = outputs(8), outputs(8, seed=1), plain_batch(8)
    method = build(name, student, teacher)

    def changed(**changes: Any) -> set[str]:
        one, other = (method.losses(student, teacher, each) for each in (plain, replace(plain, **changes)))
        return {term for term in one if not torch.equal(one[term], other[term])}

    assert changed(label_smoothing=0.1) == terms
    mixed = torch.rand(8, student.logits.shape[1]).softmax(1)
    assert changed(soft_labels=mixed) == terms - {"strong_cross_entropy"}  # views are not mixed


def test_timm_is_asked_for_before_anything_starts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.data.distortion.find_spec", lambda name: None)
    with pytest.raises(KdbenchError, match=r"augmentation: .*needs timm. Install it: pip install 'kdbench\[timm\]'"):
        lab.suite(recipe={**TINY["recipe"], "augmentation": {"pad": 1, "rand_augment": {"name": "timm"}}})


def test_another_optimiser_takes_nothing_over_from_the_base() -> None:
    tree = recipe_tree({"base": "short", "optimiser": {"name": "adamw", "lr": 0.001}, "schedule": {"gamma": 0.5}})
    found = Recipe.model_validate(tree)
    assert found.optimiser == AdamW(lr=0.001)
    assert found.schedule == Schedule(milestones=(3, 5), gamma=0.5)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_can_be_shown_and_copied(name: str) -> None:
    value, text = shown("recipe", name)
    keys = {entry["key"] for entry in value["keys"]}
    assert {"optimiser.lr", "schedule.warm_up_epochs", "augmentation.strong.rand_augment.name", "mixup"} <= keys
    assert "recipe:" in text
