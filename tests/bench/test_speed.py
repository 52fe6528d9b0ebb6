"""Speed of the parts, by `tox -e bench`: steps of every method, the data, evaluation, and planning of 10,000 trials."""

import pytest
import torch
import yaml
from plain import PilImages, train_epoch
from row import MEAN, ROW, STD, lockstep, noise, trials

from kdbench.data import Dataset, ResidentLoader, SourceParams, epoch_plan
from kdbench.method.interface import METHODS
from kdbench.method.pair import PairError
from kdbench.results.store import Store
from kdbench.runner.plan import make_plan
from kdbench.spec.recipe import SGD, Augmentation, Recipe
from kdbench.spec.record import PROTOCOL
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.training.builder import Builder
from kdbench.training.evaluation import error_pct
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.segments import MAIN, segments
from kdbench.training.single import Single

load_shipped()
CPU = torch.device("cpu")
SPLIT = noise(512)
BENCH = Builder(Dataset(SPLIT, noise(1000), tuple("0123456789"), MEAN, STD), SourceParams(), CPU)
RECIPE = Recipe(epochs=1, batch_size=64, optimiser=SGD(lr=0.1))


@pytest.mark.parametrize("name", [*METHODS.names(), "at+kd", "ft+kd"])
def test_step(benchmark, name):
    """One step of a lane, teacher and data left out: resnet20 -> resnet8, batch 64, 32x32."""
    spec = trials([name], teacher="resnet20", student="resnet8", recipe=RECIPE)[0]
    teacher = FrozenTeacher(BENCH.network("resnet20"), image_shape=(3, 32, 32), recipe=RECIPE, device=CPU)
    try:
        method = BENCH.composition(spec, teacher.network.teacher_parts())
    except PairError as reason:
        pytest.skip(str(reason))
    student = BENCH.student(spec)
    main = [segment for segment in segments(method, student, RECIPE) if segment.phase == MAIN]
    lane = Lane(name, seed=0, student=student, method=method, segments=main, precision="fp32", device=CPU)
    data = BENCH.training_data(RECIPE.augmentation)
    assert isinstance(data, ResidentLoader)
    images, labels, indices = data.batch(epoch_plan(512, RECIPE.augmentation, torch.Generator()), 0, 64)
    outputs = teacher(images)
    lane.begin_epoch()
    inputs = StepInputs(images, labels, indices, teacher=outputs)
    unit = Single(lane)
    unit.train_step(inputs)
    benchmark.pedantic(unit.train_step, args=(inputs,), rounds=8, warmup_rounds=1)


def test_batch(benchmark):
    """One augmented batch of 128 images of 32x32."""
    data = ResidentLoader(SPLIT, mean=MEAN, std=STD, device=CPU, augmentation=Augmentation())
    plan = epoch_plan(512, Augmentation(), torch.Generator())
    benchmark(data.batch, plan, 0, 128)


def test_evaluation(benchmark):
    """1,000 images through resnet20."""
    network = BENCH.network("resnet20").eval()
    benchmark.pedantic(
        error_pct, args=(lambda images: network(images).logits, BENCH.test_data), kwargs={"precision": "fp32"}, rounds=5
    )


PAIR = {"teacher": "resnet56", "student": "resnet20"}
RECIPE_OF_THE_ROW = Recipe(epochs=1, batch_size=128, optimiser=SGD(lr=0.1))
IMAGES_OF_THE_ROW = noise(256)


@pytest.fixture
def row():
    """The seven methods on ResNet-56 -> ResNet-20, two batches of 128."""
    data = Dataset(IMAGES_OF_THE_ROW, noise(128), tuple("0123456789"), MEAN, STD)
    return Builder(data, SourceParams(), CPU), trials(list(ROW), recipe=RECIPE_OF_THE_ROW, **PAIR)


def test_the_row_in_lockstep(benchmark, row):
    builder, specs = row
    teacher = FrozenTeacher(builder.network("resnet56"), image_shape=(3, 32, 32), recipe=RECIPE_OF_THE_ROW, device=CPU)
    benchmark.pedantic(lockstep, args=(builder, specs, teacher), rounds=3, warmup_rounds=1)


def test_the_row_in_the_plain_loop(benchmark, row):
    """`tests/bench/row.py` compares the two side by side."""
    builder, specs = row
    teacher = builder.network("resnet56").to(memory_format=torch.contiguous_format)
    images = PilImages(IMAGES_OF_THE_ROW, MEAN, STD)

    def plain():
        for spec in specs:
            student = builder.student(spec).to(memory_format=torch.contiguous_format)
            method = builder.composition(spec, teacher.teacher_parts())
            train_epoch(student, teacher, method, images, batch_size=128, workers=0, device=CPU)

    benchmark.pedantic(plain, rounds=2, warmup_rounds=0)


def test_planning_10_000_trials(benchmark, tmp_path):
    """From the suite's file to the status of every trial."""
    suite = {
        "title": "many",
        "dataset": "digits",
        "recipe": "digits-quick",
        "seeds": list(range(2500)),
        "methods": ["kd", "at", "ft", "ft+kd"],
        "pairs": [{"teacher": "resnet20", "student": "resnet8"}],
    }
    file = tmp_path / "many.yaml"
    file.write_text(yaml.safe_dump(suite))
    store = Store(tmp_path / "results", protocol=PROTOCOL)
    plan = benchmark.pedantic(lambda: make_plan(load_suite(file), store), rounds=3)
    assert len(plan.students) == 10_000
