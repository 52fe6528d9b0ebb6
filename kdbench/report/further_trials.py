"""What a results folder has beside the trials of suites: other seeds of them, and other settings of their methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdbench.results.store import Store
from kdbench.spec.trial import digest

if TYPE_CHECKING:
    from kdbench.runner.plan import Plan

_SETTING = ("methods", "ce", "seed")
"""Keys of a trial in which settings of one method differ, whatever their seeds."""


def further_trials(plans: Sequence[Plan], store: Store) -> tuple[list[int], list[str]]:
    """What else was finished that differs from the trials of suites in one thing alone, and is in none of them: seeds, and settings
    of their methods, such as `kd (temperature=2)`.

    Trials from scratch alone make no seed: other suites with the same student may have more of them. Tuning trials make no setting:
    a table of their own tells them.
    """
    specs = [planned.spec for plan in plans for planned in plan.students]
    own = [spec.model_dump(mode="json") for spec in specs if spec.teachers]
    settings, pairs = {_but(spec, "seed") for spec in own}, {_but(spec, *_SETTING) for spec in own}
    listed, known = {spec.seed for spec in specs}, {spec.id for spec in specs}
    seeds, others = set[int](), set[str]()
    for record in store.records(but=known):
        if record.status == "failed" or record.tuning:
            continue
        if _but(record.spec, "seed") in settings:
            seeds |= {record.seed} - listed
        elif _but(record.spec, *_SETTING) in pairs:
            others.add(record.setting or record.method)
    return sorted(seeds), sorted(others)


def _but(spec: Mapping[str, Any], *keys: str) -> str:
    """What a trial is but for some keys; of the methods their names stay."""
    methods = [part["name"] for part in spec["methods"]] if "methods" in keys else spec["methods"]
    return digest({**{key: value for key, value in spec.items() if key not in keys}, "methods": methods})
