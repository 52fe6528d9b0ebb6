"""`compile: true`: the same training but for rounding, its compilation stated apart, and never mixed with the other in a table."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from kdbench.errors import KdbenchError
from kdbench.method.outputs import Outputs
from kdbench.models import MODELS, Network, build_model
from kdbench.report.compare import check_comparable
from kdbench.runner.frame import load_results
from kdbench.training.compiled import Compiled

METHODS = ["scratch", "kd", {"ft": {"paraphraser_epochs": 1}}]


class Small(Network):
    """Seconds to compile, where a network of the registry takes a minute."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, num_classes)
        self.unread = nn.Linear(1, 1)  # some networks of libraries have a head that is used in their own training only

    def forward(self, images: Tensor) -> Outputs:
        before = self.norm(self.conv(images))
        maps = F.relu(before)
        pooled = maps.mean((2, 3))
        return Outputs(self.classifier(pooled), maps, (maps,), (before,), pooled)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return (self.norm,)


@pytest.fixture
def small() -> Iterator[str]:
    restore = MODELS.snapshot()
    MODELS.register("small")(Small)
    yield "small"
    restore()


@pytest.fixture
def compiled(lab, small):
    """A finished run, and one of the same trials without compilation in the same directory."""
    torch.compiler.reset()
    counters.clear()
    pairs = [{"teacher": small, "student": small}]
    for compiling in (True, False):
        lab.run(lab.suite(pairs=pairs, methods=METHODS, recipe={"compile": compiling}, teacher={"recipe": {"compile": False}}))
    return lab


def test_students_share_a_compilation_train_as_without_it_but_for_rounding_and_say_what_starting_cost(compiled):
    assert counters["stats"]["unique_graphs"] == 4  # two sizes of batches, for the teacher and, in common, for all three students
    results = load_results(compiled.store.root)
    assert set(results["status"]) == {"done"}, list(results["reason"])
    ours = results.set_index(["precision", "method"]).sort_index()
    for method in ("scratch", "kd", "ft"):
        with_it, without = ours.loc[("fp32, compiled", method)], ours.loc[("fp32", method)]
        assert with_it.train_loss == pytest.approx(without.train_loss, rel=1e-3)
        assert without.startup_s == 0
    assert ours.loc["fp32, compiled", "startup_s"].max() > ours.loc["fp32, compiled", "train_s"].max()


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


def test_tables_refuse_to_mix_it_with_the_other(compiled):
    with pytest.raises(
        KdbenchError, match=r"cannot mix compiled trainings with others: fp32, compiled, .*; fp32, recipe .*--recipe"
    ):
        check_comparable(load_results(compiled.store.root))
