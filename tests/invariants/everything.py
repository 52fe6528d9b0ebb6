"""One run of every method of the registry, and what was seen of each step of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from torch import Tensor, nn

from invariants.probes import SHORT, around_steps, digest, norms, short
from kdbench.models.weights import state_hash
from kdbench.runner.preflight import misfits
from kdbench.suite.suite import Suite
from kdbench.training.lane import Lane


@dataclass(frozen=True)
class Step:
    """What was seen of one step of a lane.

    `student` and `staged` are hashes before it: of the student, and of what a stage before the main training trained.
    `optimised` names the parameters that the optimiser has, `trainable` those that it should have. `student_norms` and
    `method_norms` say how often batch norms ran in it.
    """

    lane: Lane
    segment: str
    batch: str
    student: str
    staged: str
    student_in_training: bool
    optimised: frozenset[str]
    trainable: frozenset[str]
    student_norms: frozenset[int]
    method_norms: frozenset[int]


def parameters_to_train(lane: Lane, segment: str) -> set[int]:
    """Their `id`: in a stage what it says it trains, in the main training the student and what no stage has trained."""
    stage = next((stage for part, stage in lane.method.stages() if f"{part}.{stage.name}" == segment), None)
    student = list(lane.student.parameters()) if lane.student else []
    if stage:
        adapters = [p for module in stage.modules for p in module.parameters()]
        return {id(p) for p in [*adapters, *(student if stage.trains_student else [])]}
    staged = {id(p) for _, stage in lane.method.stages() for module in stage.modules for p in module.parameters()}
    return {id(p) for p in [*student, *lane.method.parameters()]} - staged


def refusals(lab: Lab, suite: Suite) -> dict[str, str]:
    """The methods that cannot do the suite's pair, and why."""
    builder = lab.builder(suite)
    found = ((trial.method, misfits(builder, [trial], download=True)[0]) for trial in suite.trials)
    return {method: str(problem) for method, problems in found for problem in problems}


@dataclass(frozen=True)
class Everything:
    """One run of all methods at once."""

    lab: Lab
    suite: Suite
    refused: dict[str, str]
    steps: list[Step]

    def of(self, method: str) -> list[Step]:
        """The steps of the student's lane."""
        students = [step for step in self.steps if step.lane.student and step.lane.seed == 1]
        found = [step for step in students if "+".join(step.lane.method.parts) == method]
        assert found, f"no student was trained with {method}"
        return found


@pytest.fixture(scope="session")
def everything(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    lab = Lab(tmp_path_factory.mktemp("everything"), images)
    refused = refusals(lab, lab.suite(methods=short(*SHORT)))
    suite = lab.suite(methods=short(*(name for name in SHORT if name not in refused)), seeds=[1])
    steps = []

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        segment = lane._segment.name
        names = {id(p): name for name, p in [*(lane.student or nn.Module()).named_parameters(), *lane.method.named_parameters()]}
        optimised = {id(p) for group in lane.updates.optimiser.param_groups for p in group["params"]}
        staged = [value for _, stage in lane.method.stages() for module in stage.modules for value in module.state_dict().values()]
        student = state_hash(lane.student.state_dict()) if lane.student else ""
        in_training = bool(lane.student) and all(module.training for module in lane.student.modules())
        before = digest(*staged)
        counts = norms(lane.student), norms(lane.method)
        yield
        ran = [
            frozenset(after - before for before, after in zip(count, norms(module), strict=True))
            for count, module in zip(counts, (lane.student, lane.method), strict=True)
        ]
        steps.append(
            Step(
                lane,
                segment,
                digest(images, indices),
                student,
                before,
                in_training,
                optimised=frozenset(names[key] for key in optimised),
                trainable=frozenset(names[key] for key in parameters_to_train(lane, segment)),
                student_norms=ran[0],
                method_norms=ran[1],
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        around_steps(patch, look)
        assert lab.run(suite)
    return Everything(lab, suite, refused, steps)


@pytest.fixture(params=list(SHORT))
def each_method(request: pytest.FixtureRequest, everything: Everything) -> str:
    """A method's name; one that refuses the pair is skipped."""
    if reason := everything.refused.get(request.param):
        pytest.skip(reason)
    return str(request.param)
