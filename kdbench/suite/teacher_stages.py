"""What methods learn from a teacher alone, before any student: which stages a trial needs, and what each depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from kdbench.method.interface import METHODS
from kdbench.method.specs import stage_epochs
from kdbench.spec.trial import MethodSpec, TrialSpec, digest
from kdbench.streams import derive
from kdbench.suite.code_hash import core_code, method_code


@dataclass(frozen=True)
class TeacherStage:
    """One training of a stage that learns from a teacher alone, or one survey.

    Attributes:
        teacher: the trial that trained the teacher.
        part: the method, with those of its parameters alone that determine what the stage learns.
        stage: its name in the method.
        seed: of the students that it is for; None where one training serves all seeds, as a survey always does.
    """

    teacher: TrialSpec
    part: MethodSpec
    stage: str
    seed: int | None

    @cached_property
    def id(self) -> str:
        """16 hexadecimal characters: students that need the same stage name the same one."""
        return digest([self.teacher.id, self.part.model_dump(mode="json"), self.stage, self.seed])

    @property
    def together(self) -> tuple[str, int | None]:
        """Stages that share it train side by side: the teacher's trial and the seed."""
        return self.teacher.id, self.seed

    @property
    def name(self) -> str:
        """For curves, such as `ft.paraphraser`."""
        return f"{self.part.name}.{self.stage}"

    @property
    def epochs(self) -> int:
        """How many it has; none of a survey, which is a single pass."""
        return stage_epochs(self.part.params)

    @property
    def label(self) -> str:
        """For logs, such as `ft.paraphraser (seed 3)`."""
        return self.name if self.seed is None else f"{self.name} (seed {self.seed})"

    @property
    def stream_seed(self) -> int | str:
        """Seeds the initial weights of its modules and the method's own streams; the batches are the same for all seeds."""
        return self.teacher.stream_seed if self.seed is None else derive(self.teacher.stream_seed, "stages", self.seed)

    def key(self, *, teacher_sha256: str) -> str:
        """Names what was learnt: other weights of the teacher, and other code, have another key."""
        return digest([self.id, teacher_sha256, core_code(), method_code([self.part])])


def teacher_stages(trial: TrialSpec) -> list[TeacherStage]:
    """Those that a student's trial needs, surveys among them, in the order of its methods."""
    if not trial.teacher:
        return []
    seed = trial.seed if trial.stages == "per-seed" else None
    return [
        TeacherStage(trial.teacher, _only(part, names), stage, of)
        for part in trial.methods
        for declared, of in ((METHODS.get(part.name).teacher_surveys, None), (METHODS.get(part.name).teacher_stages, seed))
        for stage, names in declared.items()
    ]


def _only(part: MethodSpec, names: Iterable[str]) -> MethodSpec:
    """The method with these of its parameters, and the defaults of the others."""
    local = part.local and type(part.local)(**{name: getattr(part.local, name) for name in names})
    return MethodSpec(name=part.name, params={name: part.params[name] for name in names}, local=local)
