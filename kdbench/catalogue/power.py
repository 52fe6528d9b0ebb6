"""What the seeds of a suite can show, before they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from kdbench.catalogue.text import Value
from kdbench.method.specs import teachers_label
from kdbench.results.store import Store
from kdbench.runner.plan import Plan, Status
from kdbench.spec.trial import digest, teachers_in
from kdbench.wording import counted

if TYPE_CHECKING:
    from kdbench.report.statistics.power import Spread  # slow to import, and of no use where nothing was measured

ENOUGH_DF = 5
"""With fewer degrees of freedom a measured spread may be far off, and says less than the suite's own."""


@dataclass(frozen=True)
class Power:
    """Which differences from one method a suite can find, in percentage points of test error.

    Attributes:
        methods: of the pair that has most.
        seeds: of the suite.
        spread: how much the difference of two methods changes from seed to seed; None where that is not known.
        asked: a difference for which the number of seeds is asked; half of what the seeds find unless given.
    """

    methods: int
    seeds: int
    spread: Spread | None
    asked: float | None = None

    @property
    def smallest(self) -> float | None:
        """The difference that is found four times of five; None where the spread is not known or seeds give no interval."""
        if self.spread is None:
            return None
        from kdbench.report.statistics.power import smallest_difference

        return smallest_difference(spread=self.spread.points, seeds=self.seeds, methods=self.methods)

    @property
    def wanted(self) -> float | None:
        """The difference for which seeds are counted: what was asked, or half of the smallest one, to one digit."""
        if self.asked:
            return self.asked
        return float(f"{self.smallest / 2:.1g}") if self.smallest else None

    def seeds_for_wanted(self, spread: float) -> int | None:
        """How many seeds would find that with such a spread; None where it is not known, or more than 1,000."""
        if self.wanted is None:
            return None
        from kdbench.report.statistics.power import seeds_needed

        return seeds_needed(self.wanted, spread=spread, methods=self.methods)


def power_of(plan: Plan, store: Store, *, difference: float | None = None) -> Power | None:
    """From the spread of finished trials of the same pairs and methods, or else the suite's own.

    None where nothing is compared, and where nothing is left to train unless the seeds for a `difference` are asked.
    """
    methods = max((len(_settings(plan, pair)) for pair in plan.suite.pairs), default=0)
    if methods < 2 or (difference is None and all(planned.status is Status.DONE for planned in plan.students)):
        return None
    return Power(methods, len({planned.spec.seed for planned in plan.students}), _spread(plan, store), difference)


def _settings(plan: Plan, pair: tuple[str, str]) -> set[str]:
    """The methods of a pair, with parameters."""
    teacher, student = pair
    of_student = [planned.spec for planned in plan.students if planned.spec.label == student]
    return {repr(spec.methods) for spec in of_student if teachers_label(spec) in (None, teacher)}


def _spread(plan: Plan, store: Store) -> Spread | None:
    expected, done = plan.suite.expected_spread, _done(plan, store)
    if not done and expected is None:
        return None
    from kdbench.report.statistics.power import Spread, pooled

    measured = pooled(_measured(done, plan)) if done else None
    if expected is None or (measured and measured.df >= ENOUGH_DF):
        return measured
    return Spread(expected, 0)


class _Done(NamedTuple):
    """A finished trial: `method` is what people call its `setting`, which is all that tells it from others of its student, apart
    from its seed and its `teachers`, their trials and weights."""

    student: str
    teachers: _Teachers
    method: str
    setting: str
    seed: int
    error: float


_Teachers = tuple[tuple[str, str | None], ...]


def _done(plan: Plan, store: Store) -> list[_Done]:
    """The finished trials of the directory that differ from those of the suite in their seeds and teachers alone.

    Another method may vary far more or less, and the suite's own report does not rest on it.
    """
    own = {_setting(planned.spec.model_dump(mode="json")) for planned in plan.students}
    return [
        _Done(
            record.student,
            tuple(zip(map(digest, teachers_in(record.spec)), record.teachers_sha256, strict=False)),
            record.setting or record.method,
            setting,
            record.seed,
            record.test_error_pct,
        )
        for record in store.records()
        if record.status == "done" and record.test_error_pct is not None and (setting := _setting(record.spec)) in own
    ]


def _setting(spec: Mapping[str, Any]) -> str:
    """What a trial is apart from its seed and its teachers."""
    return digest({key: value for key, value in spec.items() if key not in ("seed", "teacher", "other_teachers")})


def _measured(done: Sequence[_Done], plan: Plan) -> list[Spread]:
    """Of each pair and each training of the suite's own teacher, with what has no teacher and shares its seeds.

    A training without a teacher stands beside several of them, and counts with the first one only: degrees of freedom add up where
    no number counts twice.
    """
    import pandas as pd

    from kdbench.report.statistics.comparisons import largest_block
    from kdbench.report.statistics.power import measured_spread

    frame, pairs = pd.DataFrame(done), plan.suite.pairs
    called = dict(zip(frame["setting"], frame["method"], strict=True))
    spreads = []
    for teacher, student in pairs:
        specs = [planned.spec for planned in plan.students if planned.spec.label == student]
        own = {tuple(one.id for one in spec.teachers) for spec in specs if teachers_label(spec) == teacher}
        taught = frame.loc[frame["student"] == student, "teachers"].unique()
        at = f" for {teacher} -> {student}" if len(pairs) > 1 else ""
        for found in [one for one in taught if tuple(trial for trial, _ in one) in own] or [()]:
            of_student = frame[frame["student"] == student]
            beside = of_student["teachers"].isin([found, ()])
            block = largest_block(of_student[beside].pivot(index="seed", columns="setting", values="error"))
            if spread := measured_spread(block):
                far = tuple((f"{called[setting]}{at}", points) for setting, points in spread.far)
                spreads.append(replace(spread, far=far))
                of_block = beside & of_student["seed"].isin(block.index) & of_student["setting"].isin(block.columns)
                frame = frame.drop(index=of_student.index[of_block])
    return spreads


def power_as_json(power: Power | None) -> Value | None:
    """`methods`, `seeds`; `spread` in points, null where it is not known, and `spread_df`, its degrees of freedom, 0 where the
    suite gave it; `spread_interval`, the two ends of its 95 % interval, null where the suite gave it; `left_out`, the spreads of
    methods that vary far more, by method; `smallest_difference` in points, found four times of five; and `seeds_for` with a
    `difference` and the `seeds` that it needs.
    """
    if power is None:
        return None
    spread, wanted = power.spread, power.wanted
    return {
        "methods": power.methods,
        "seeds": power.seeds,
        "spread": spread.points if spread else None,
        "spread_df": spread.df if spread else None,
        "spread_interval": [*spread.interval] if spread and spread.interval else None,
        "left_out": dict(spread.far) if spread else {},
        "smallest_difference": power.smallest,
        "seeds_for": {"difference": wanted, "seeds": power.seeds_for_wanted(spread.points)} if wanted and spread else None,
    }


def power_as_text(power: Power) -> str:
    """What the seeds can show, and what that rests on."""
    if not power.spread:
        return (
            "it is not known what they can show, since no finished trials here tell how much these methods vary. Give the suite an "
            "`expected_spread`: the standard deviation over seeds of the difference of two methods, in points, such as 0.3."
        )
    from kdbench.report.statistics.comparisons import MIN_SEEDS

    enough = Power(power.methods, max(power.seeds, MIN_SEEDS), power.spread, power.asked)
    assert enough.smallest is not None and enough.wanted is not None
    too_few = f"{counted(power.seeds, 'seed')} can tell no difference from chance. " if power.seeds < MIN_SEEDS else ""
    spread, wanted = power.spread, _points(enough.wanted)
    seeds = _seeds(enough.seeds_for_wanted(spread.points))
    measured = "was measured here" + (", from few trials, so it may be far off" if spread.df < ENOUGH_DF else "")
    basis = measured if spread.df else "is what the suite says"
    sure = ""
    if spread.interval:
        least, most = (_seeds(enough.seeds_for_wanted(end)) for end in spread.interval)
        ends = " to ".join(map(_points, spread.interval))
        needs = f"; at its ends, {wanted} points need {least} and {most} seeds" if least != most else ""
        sure = f" (95 % interval {ends}{needs})"
    far = ", ".join(f"{method} ({_points(own)} points)" for method, own in spread.far)
    left_out = f" Left out, since they vary far more and need more seeds: {far}." if far else ""
    return (
        f"{too_few}{'With' if too_few else 'with'} {enough.seeds} seeds and {power.methods} methods, a difference of "
        f"{_points(enough.smallest)} points is found four times of five, on these test images; more seeds say nothing about other "
        f"images. For {wanted} points you need {seeds} seeds. "
        f"The difference of two methods changes by {_points(spread.points)} points from seed to seed{sure}. "
        f"This spread {basis}.{left_out}"
    )


def _seeds(number: int | None) -> str:
    return str(number) if number else "more than 1,000"


def _points(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}".removesuffix("0")
