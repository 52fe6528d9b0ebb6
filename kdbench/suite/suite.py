"""A suite as it is once its file is read: trials, and what the file says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdbench.data import Source, SourceParams
from kdbench.spec.report_options import ReportOptions
from kdbench.spec.trial import TrialSpec
from kdbench.suite.tuning import Candidates, Tuning


@dataclass(frozen=True)
class Suite:
    """A resolved suite.

    Attributes:
        name: the file's stem.
        file: where it lies, absolute.
        content: a hash of its text.
        title: heads the report.
        pairs: (teacher, student) as tables call them, in the file's order.
        methods: their names in the order in which they were asked for, the file's unless any were.
        trials: the students' trials, in the order pair, method, seed, without repetition.
        source: the data set, not yet loaded.
        candidates: for each pair and method the settings that its trials are chosen from. Until a plan has chosen, `trials` are
            those of the suite's own parameters, and a plan's `used` is all that count.
        tuning: how they are chosen; None where they are not.
        tries_settings: whether its trials choose among settings, and are no results.
        keep_students: whether the students' weights are kept.
        expected_error_pct: by the id of a teacher's trial, the test error that it ought to have, where the file says so.
        expected_spread: how much the difference of two methods changes from seed to seed, in points, where the file says so.
        report: how its report looks.
        selection: the methods and seeds that stand for the file's, in words; empty where it is all of the file.
    """

    name: str
    file: Path
    content: str
    title: str
    pairs: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]
    trials: tuple[TrialSpec, ...]
    source: tuple[type[Source], SourceParams]
    keep_students: bool
    expected_error_pct: Mapping[str, float]
    expected_spread: float | None
    report: ReportOptions
    selection: str = ""
    candidates: tuple[Candidates, ...] = ()
    tuning: Tuning | None = None
    tries_settings: bool = False

    @property
    def teachers(self) -> tuple[TrialSpec, ...]:
        """The trials of the teachers that the students need, and of those teachers' own, each after its own; without repetition."""
        found: dict[str, TrialSpec] = {}

        def add(trial: TrialSpec) -> None:
            for teacher in trial.teachers:
                add(teacher)
                found.setdefault(teacher.id, teacher)

        for trial in self.trials:
            add(trial)
        return tuple(found.values())
