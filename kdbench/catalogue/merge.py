"""What a merge would do, as text: how many trials of each kind, and each one that differs with both environments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdbench.catalogue.text import aligned, size_text
from kdbench.catalogue.trials import network
from kdbench.errors import KdbenchError, listed
from kdbench.results.frames import environment_text
from kdbench.results.layout import SHORT
from kdbench.results.merge import Action, Merge, Step
from kdbench.results.mixtures import Kind, Mixture
from kdbench.spec.record import Record
from kdbench.wording import counted

_MEANINGS = {
    Action.COPY: "{into} has no such trial ({states})",
    Action.REPLACE: "finished here; in {into} it failed or is not finished",
    Action.TAKE: "it differs, and takes the place of the one in {into}",
    Action.ADD: "the same result; files that {into} lacks are copied",
    Action.SAME: "the same result, already in {into}",
    Action.LEAVE: "not finished or failed here; what {into} has stays",
    Action.PASS: "not copied, for the reason below",
    Action.CLASH: "it cannot stand in {into} beside what is there, for the reason below",
}


def merge_as_text(plan: Merge) -> str:
    """Counts by directory and kind, then what differs, what becomes stale and what is not merged."""
    lines = []
    for source in dict.fromkeys(step.source for step in plan.steps):
        steps = [step for step in plan.steps if step.source == source]
        lines += [f"{source} into {plan.into}:", *_counts(plan, steps)]
    lines += _differing(plan)
    if plan.stale:
        trials = listed([record.trial[:SHORT] for record in plan.stale])
        lines.append(
            f"{counted(len(plan.stale), 'finished student')} of {plan.into} would become stale, since their teacher gets other "
            f"weights than they learnt from: {trials}. The next run trains them anew."
        )
    lines += [_mixture_text(plan, mixture) for mixture in plan.mixtures]
    if count := sum(map(len, plan.macs.values())):
        lines.append(f"macs.json gets {counted(count, 'network')}.")
    if plan.others:
        lines.append(f"not merged: {listed(plan.others)}. Reports and the cache are made anew.")
    return "\n".join(lines)


def refuse_clashes(plan: Merge) -> None:
    """See that the user has chosen where two directories differ.

    Raises:
        KdbenchError: trials differ, or students would become stale, and `--keep` was not given.
    """
    if count := len(plan.of(Action.CLASH)):
        raise KdbenchError(
            f"nothing was merged: {counted(count, 'trial')} cannot stand beside what is in {plan.into}. Choose: --keep into leaves "
            "them out, --keep from puts them in the place of what is there. Look first with --dry-run."
        )


def _counts(plan: Merge, steps: Sequence[Step]) -> list[str]:
    rows = []
    for action in Action:
        if found := [step for step in steps if step.action is action]:
            states = Counter(step.theirs.state.value for step in found)
            text = _MEANINGS[action].format(into=plan.into, states=", ".join(f"{n} {state}" for state, n in states.items()))
            size = sum(file.stat().st_size for step in found if _copies(step) for file in step.files.values())
            rows.append([str(len(found)), action.value, size_text(size) if size else "", text])
    return aligned(rows)


def _copies(step: Step) -> bool:
    return step.action in (Action.COPY, Action.REPLACE, Action.TAKE, Action.ADD)


def _differing(plan: Merge) -> Iterator[str]:
    for step in plan.of(Action.CLASH, Action.TAKE, Action.PASS):
        if step.ours and step.ours.record and step.theirs.record and step.differences:
            ours, theirs = step.ours.record, step.theirs.record
            keys = listed(step.differences)
            yield f"{_name(theirs)}: the records differ in {counted(len(step.differences), 'key')}: {keys}"
            ours_at = step.ours.path.parents[1]
            yield from aligned([_where(ours_at, ours), _where(step.source, theirs)])
    reasons: dict[tuple[Path, str], list[Step]] = {}
    for step in plan.of(Action.CLASH, Action.TAKE, Action.PASS):
        if step.reason:
            reasons.setdefault((step.source, step.reason), []).append(step)
    for (source, reason), steps in reasons.items():
        trials = listed([step.theirs.trial[:SHORT] for step in steps])
        yield f"{counted(len(steps), 'trial')} of {source}: {reason.replace('INTO', str(plan.into))} ({trials})"
        yield from aligned([_where(source, step.theirs.record) for step in steps[:1] if step.theirs.record])


def _mixture_text(plan: Merge, mixture: Mixture) -> str:
    """What will not stand in one table, what that means, and what to do."""
    methods = f" of {listed(sorted({record.method for record in mixture.coming}))}" if mixture.kind is Kind.CODE else ""
    text = (
        f"Other {mixture.kind.value}{methods}: {counted(len(mixture.coming), 'trial')} of {mixture.other} against "
        f"{len(mixture.there)} of {mixture.first}. `kdbench report {plan.into}` would refuse both in one table"
    )
    if mixture.kind is Kind.CODE:
        return (
            f"{text}. In their suite those are stale that the present code did not make, and its next run trains them anew. To "
            "keep both, merge into another folder."
        )
    return f"{text}, unless an option such as --recipe chooses one. `kdbench report SUITE` shows each suite alone."


def _name(record: Record) -> str:
    return (
        f"{record.trial[:SHORT]}, {network(record.teacher, record.student)}, {record.setting or record.method}, seed {record.seed}"
    )


def _where(root: Path, record: Record) -> list[str]:
    return [str(root), f"test error {record.test_error_pct:.2f} %", environment_text(record.environment), record.finished]
