"""Which settings of methods a suite's tuning trials choose: by the error on held-out images, and by nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kdbench.spec.record import Record
from kdbench.suite.suite import Suite
from kdbench.suite.tuning import Candidates, Setting, without_repetition
from kdbench.wording import counted


@dataclass(frozen=True)
class Tried:
    """A setting, and what came of its tuning trials.

    Attributes:
        errors_pct: on the held-out images after the last epoch, in percent, of those that are done.
        failure: why one of them failed; None where none did.
        missing: how many have no record yet.
    """

    setting: Setting
    errors_pct: tuple[float, ...]
    failure: str | None
    missing: int

    @property
    def mean_pct(self) -> float | None:
        """The mean of the errors; None where a trial failed or is missing, or none was needed."""
        return None if self.failure or self.missing or not self.errors_pct else statistics.fmean(self.errors_pct)


@dataclass(frozen=True)
class Choice:
    """What was tried of one method for one pair.

    A setting can be chosen if all its trials are done. The lowest mean validation error wins. Of equal ones it is the first: the
    suite's own parameters, then the settings in the order of the grid.
    """

    candidates: Candidates
    tried: tuple[Tried, ...]

    @property
    def chosen(self) -> Setting | None:
        """None where trials are missing, or each setting has failed."""
        if len(self.tried) == 1:
            return self.tried[0].setting
        whole = [(found.mean_pct, found.setting) for found in self.tried if found.mean_pct is not None]
        if not whole or any(found.missing for found in self.tried):
            return None
        return min(whole, key=lambda found: found[0])[1]  # the first of equal ones

    @property
    def open_because(self) -> str:
        """Why nothing is chosen."""
        if missing := sum(found.missing for found in self.tried):
            of = sum(len(found.setting.tried) for found in self.tried)
            are = "is" if missing == 1 else "are"
            return f"its parameters are not chosen yet: {missing} of {counted(of, 'tuning trial')} {are} missing"
        return f"all {len(self.tried)} settings failed in tuning, the first with: {self.tried[0].failure}"


def choose(candidates: Candidates, records: Mapping[str, Record]) -> Choice:
    """The choice among the settings of one method for one pair.

    Args:
        candidates: the settings.
        records: of the tuning trials that are done or have failed, by trial.
    """
    return Choice(candidates, tuple(_tried(setting, records) for setting in candidates.settings))


def with_choices(suite: Suite, choices: Iterable[Choice]) -> Suite:
    """The suite with the trials of what was chosen; those of the suite's own parameters where nothing is yet."""
    reported = (choice.chosen.reported if choice.chosen else choice.candidates.provisional for choice in choices)
    return replace(suite, trials=without_repetition(trial for trials in reported for trial in trials))


def _tried(setting: Setting, records: Mapping[str, Record]) -> Tried:
    found = [records[trial.id] for trial in setting.tried if trial.id in records]
    reasons = [record.reason.splitlines()[0].rstrip(".") for record in found if record.reason]
    errors = tuple(record.validation_error_pct for record in found if record.validation_error_pct is not None)
    return Tried(setting, errors, reasons[0] if reasons else None, len(setting.tried) - len(found))
