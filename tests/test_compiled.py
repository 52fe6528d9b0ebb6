"""`compile: true`: the same training but for rounding, its compilation stated apart, and never mixed with the other in a table."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, Lab
from invariants.probes import give_teacher
from torch import Tensor, nn
from torch._dynamo.utils import counters

from kdbench import Batch, Losses, Method
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.method.outputs import Outputs
from kdbench.models import MODELS, Network, build_model
from kdbench.report.compare import check_comparable
from kdbench.runner.frame import load_results
from kdbench.suite.suite import Suite
from kdbench.training.compiled import Compiled

COMPARED: list[Any] = ["scratch", "kd", {"ft": {"paraphraser_epochs": 1}}, {"fitnets": {"hint_epochs": 1}}]


class Small(Network):
    """Seconds to compile, where a network of the registry takes a minute."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, num_classes)
        self.unlearnt = nn.Linear(1, 1)  # a weight that is read without a gradient, and a bias that nobody reads

    def forward(self, images: Tensor) -> Outputs:
        before = self.norm(self.conv(images + 0 * self.unlearnt.weight.detach().isnan().sum()))
        maps = F.relu(before)
        pooled = maps.mean((2, 3))
        return Outputs(self.classifier(pooled), maps, (maps,), (before,), pooled)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return (self.norm,)


class Odd(Method):
    """Draws, so that its steps cannot be part of a graph; in the second epoch its loss, and what its student learns, become NaN."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        factor = math.nan if batch.epoch == 1 else torch.rand((), generator=batch.generator)
        return {"gap": student.features[0].mean() * factor}


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    restore, restore_methods = MODELS.snapshot(), METHODS.snapshot()
    MODELS.register("small")(Small)
    METHODS.register("odd")(Odd)
    yield "small"
    restore()
    restore_methods()


def suite_of(lab: Lab, small: str, *methods: Any, **recipe: bool) -> Suite:
    return lab.suite(
        pairs=[{"teacher": small, "student": small}],
        methods=[*methods],
        recipe={**TINY["recipe"], "optimiser": {"lr": 0.05, "weight_decay": 1.0}, **recipe},
        teacher={"recipe": {"compile": False}},
    )


@pytest.fixture(scope="module")
def compiled(images: Path, tmp_path_factory: pytest.TempPathFactory, small: str) -> Lab:
    """A lab in which the same trials ran compiled, without it, and compiled and stacked, there beside one that fails."""
    torch.compiler.reset()
    counters.clear()
    lab = Lab(tmp_path_factory.mktemp("compiled"), images)
    lab.run(suite_of(lab, small, *COMPARED, compile=True))
    lab.run(suite_of(lab, small, *COMPARED))
    with pytest.MonkeyPatch.context() as patch:  # it would compile them before they train
        patch.setattr("kdbench.runner.preflight.why_not_stacked", lambda builder, trial: None)
        lab.run(suite_of(lab, small, "odd", *COMPARED, compile=True, stack=True))
    return lab


@pytest.mark.parametrize("arithmetic", ["fp32, compiled", "fp32, compiled, stacked"])
def test_students_train_compiled_as_without_it_but_for_rounding_and_say_what_starting_cost(compiled: Lab, arithmetic: str) -> None:
    """Also with a strong weight decay and a stage that does not reach the classifier, which must then not decay."""
    results = load_results(compiled.store.root)
    assert set(results[results["method"] != "odd"]["status"]) == {"done"}, list(results["reason"])
    ours = results.set_index(["precision", "method"]).sort_index()
    for method in ("scratch", "kd", "ft", "fitnets"):
        with_it, without = ours.loc[(arithmetic, method)], ours.loc[("fp32", method)]
        assert with_it.train_loss == pytest.approx(without.train_loss, rel=1e-3)
        assert without.startup_s == 0
    assert ours.loc[arithmetic, "startup_s"].max() > ours.loc[arithmetic, "train_s"].max()


@pytest.mark.parametrize(("stack", "others"), [(False, ()), (True, ()), (True, ("odd",))])
def test_students_share_a_compilation(
    compiled: Lab, lab: Lab, small: str, stack: bool, others: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """There are six: for two sizes of batches, of the teacher, of all students, and of all stacks. By them each learns the same,
    alone or beside others of which one fails, with graphs or without."""
    alone = suite_of(lab, small, COMPARED[-1], compile=True, stack=stack)
    give_teacher(lab, compiled, alone)
    if others:
        request.getfixturevalue("rehearsed")
    lab.run(suite_of(lab, small, COMPARED[-1], *others, compile=True, stack=stack))
    assert lab.outcomes(alone) == compiled.outcomes(alone)
    assert counters["stats"]["unique_graphs"] == 6


def test_it_compiles_however_many_networks_were_compiled_before(small, monkeypatch):
    """And what was not prepared, such as the passes of a test, is not compiled on the way."""
    compiled: list[int] = []
    compile_one = torch.compile

    def counted(network: nn.Module, **options: object) -> object:
        del options["options"]  # inductor's
        return compile_one(network, backend=lambda graph, inputs: (compiled.append(1), graph.forward)[1], **options)

    monkeypatch.setattr(torch, "compile", counted)
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        for size in (4, 5, 6):
            images = torch.zeros(2, 1, size, size)
            network = Compiled(build_model(small, in_channels=1))
            network(images)
            assert len(compiled) == size - 4
            assert network.prepare(images) > 0
            network(images)
            assert len(compiled) == size - 3


def test_tables_refuse_to_mix_it_with_the_other(compiled: Lab) -> None:
    kinds = "fp32, compiled, recipe .*; fp32, compiled, stacked, recipe .*; fp32, recipe .*--recipe"
    with pytest.raises(KdbenchError, match=f"cannot mix compiled and stacked trainings with others: {kinds}"):
        check_comparable(load_results(compiled.store.root))
