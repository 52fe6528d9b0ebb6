"""What a report is made of: the trials of suites, or all records of a results folder, with the options that say how they look."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.paths import expanded
from kdbench.report.compare import compare
from kdbench.report.contradictions import with_contradictions
from kdbench.report.further_trials import further_trials
from kdbench.report.output_folder import ReportIdentity
from kdbench.report.page.sources import NO_SOURCES, Sources
from kdbench.results.export import is_export, read_export
from kdbench.results.frames import load_curves, read_records
from kdbench.results.outcomes import Outcomes, load_outcomes
from kdbench.results.store import Store
from kdbench.runner.frame import plan_frame, tuning_frame
from kdbench.spec.figure_options import figures_with
from kdbench.spec.record import PROTOCOL
from kdbench.spec.report_options import DEFAULT, ReportOptions
from kdbench.spec.validation import validated
from kdbench.suite.shipped import is_shipped, suite_names

if TYPE_CHECKING:
    from kdbench.runner.plan import Plan
    from kdbench.suite.suite import Suite

_CHOICES = ("datasets", "recipes", "pairs", "methods")
"""Options that say which trials are shown, not how; a title tells them."""

_OF_ALL = (*_CHOICES, "baseline", "metric")
"""Options that change what a report says of every trial: one suite's do not hold for another that does not give them."""

_JOINED = ("names", "groups")
"""Options of which each suite gives a part."""


@dataclass(frozen=True)
class Report:
    """What a report is made of; it is written below `reports` unless another directory is asked for.

    Attributes:
        pairs: (teacher, student), in the order of rows; all of the results unless given.
        methods: the order of columns where options do not say another.
        outcomes: which test images were wrong, by trial; empty where that is not known.
        tuning: the settings that were tried of each method; empty where that is not known.
        further_seeds: that the folder has of the same trials, and whole suites do not list.
        further_settings: that the folder has of the same methods and pairs, and whole suites do not list.
    """

    title: str
    results: pd.DataFrame
    curves: pd.DataFrame
    pairs: Sequence[tuple[str, str]] | None
    methods: Sequence[str]
    reports: Path
    identity: ReportIdentity
    options: ReportOptions
    sources: Sources
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)
    further_seeds: Sequence[int] = ()
    further_settings: Sequence[str] = ()

    @property
    def state(self) -> str:
        """A hash of what is known of its trials: it changes with each that ends."""
        known = self.results[["trial", "status", "finished"]].sort_values("trial")
        return sha256(known.to_csv(index=False).encode()).hexdigest()[:16]


def read_report(
    names: Sequence[str], results: Path, *, seeds: Sequence[int], changes: Mapping[str, Any], plugins: Sequence[Path]
) -> Report:
    """The report of suites, of a results folder, or of an exported file.

    Args:
        names: suites, or one folder or file.
        results: where the trials of suites are kept.
        seeds: of suites, those to show; all unless given.
        changes: options that stand for the suites', by key.
        plugins: files of Python with what the suites name.

    Raises:
        KdbenchError: there is no such suite, its trials are of another protocol, or options that mean nothing here.
    """
    stored = [name for name in names if (expanded(name).is_dir() or is_export(Path(name))) and name not in suite_names()]
    if not stored:
        return _suites_report(names, results, seeds=seeds, changes=changes, plugins=plugins)
    if len(names) > 1:
        raise KdbenchError(f"{stored[0]} is no suite, and only suites are reported together. Give suites, or one folder or file.")
    if seeds or plugins:
        raise KdbenchError("--seeds and --plugin have no effect on the report of a directory. Give a suite with them.")
    return _stored_report(expanded(stored[0]), changes)


def check_options(suite: Suite, store: Store) -> None:
    """Refuse what a suite says of its report and cannot be shown, such as a method that it lacks, before anything trains.

    Raises:
        KdbenchError: it says so.
    """
    if not suite.report.model_fields_set:
        return
    from kdbench.runner.plan import make_plan
    from kdbench.suite.resolve import load_suite

    whole = load_suite(suite.file) if suite.selection else suite
    unmeasured = plan_frame(make_plan(whole, store.looking())).assign(status="missing")
    compare(unmeasured, pairs=whole.pairs, methods=whole.methods, options=whole.report)


def _suites_report(
    names: Sequence[str], results: Path, *, seeds: Sequence[int], changes: Mapping[str, Any], plugins: Sequence[Path]
) -> Report:
    from kdbench.runner.plan import make_plan
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    load_plugins(plugins)
    store, methods = Store(results, protocol=PROTOCOL, read_only=True), changes.get("methods", ())
    plans = [make_plan(load_suite(name, methods=methods, seeds=seeds), store) for name in names]
    # A network's speed of inference is measured by all trials that have it, whichever methods are shown.
    others = [make_plan(load_suite(name, seeds=seeds), store) for name in names] if methods else []
    rows = pd.concat([plan_frame(plan) for plan in (*plans, *others)])
    which = ["trial", "dataset", "teacher", "student", "method", "seed"]  # an untuned student has no trial
    return _report(plans, names, store, rows.drop_duplicates(which, ignore_index=True), changes=changes)


def _report(
    plans: Sequence[Plan], names: Sequence[str], store: Store, results: pd.DataFrame, *, changes: Mapping[str, Any]
) -> Report:
    suites = [plan.suite for plan in plans]
    before = _agreed([suite.report for suite in suites], changes)
    options = _options(before, changes)
    selected = suites[0].selection
    changed = _changed(before, options, leave_out="methods" if selected else "")
    curves = load_curves(store.root, results["trial"])
    further_seeds, further_settings = ([], []) if selected else further_trials(plans, store)
    return Report(
        title=_with_choice(" and ".join(suite.title for suite in suites), selected, _words(changed, _CHOICES)),
        results=with_contradictions(results, curves),
        curves=curves,
        pairs=list(dict.fromkeys(pair for suite in suites for pair in suite.pairs)),
        methods=list(dict.fromkeys(method for suite in suites for method in suite.methods)),
        reports=store.root / "reports",
        identity=_identity(suites, selection="; ".join(filter(None, (selected, _words(changed))))),
        options=options,
        sources=_sources(plans, names),
        outcomes=_outcomes(store.root, results),
        tuning=pd.concat(map(tuning_frame, plans)).drop_duplicates(ignore_index=True),
        further_seeds=further_seeds,
        further_settings=further_settings,
    )


def _stored_report(root: Path, changes: Mapping[str, Any]) -> Report:
    """All records of a results folder, or of a file of `kdbench export`; teachers without students of their own are left out.

    Raises:
        KdbenchError: there are none, or they are of another protocol.
    """
    options = _options({}, changes)
    changed = _changed({}, options)
    words = _words(changed)
    if is_export(root):
        exported = read_export(root)
        results, curves, outcomes = exported.results, exported.curves, exported.outcomes
        identity = ReportIdentity(root.stem, suite=str(root), place="file", selection=words)
        reports, sources = root.parent, NO_SOURCES
    else:
        store = Store(root, protocol=PROTOCOL, read_only=True)
        store.refuse_foreign_protocols()
        results = read_records(root)
        curves, outcomes, records = load_curves(root, results["trial"]), _outcomes(root, results), list(store.records())
        identity, reports = ReportIdentity("all", suite="all trials", place="trials", selection=words), root
        sources = Sources(
            specs={record.trial: record.spec for record in records},
            environments={record.trial: record.environment.model_dump() for record in records},
        )
    return Report(
        title=_with_choice(f"All trials under {root}", _words(changed, _CHOICES)),
        results=with_contradictions(results, curves),
        curves=curves,
        pairs=None,
        methods=(),
        reports=reports / "reports",
        identity=identity,
        options=options,
        sources=sources,
        outcomes=outcomes,
    )


def _outcomes(root: Path, results: pd.DataFrame) -> dict[str, Outcomes]:
    """Which test images students and their teachers got wrong."""
    done = results[results["status"] == "done"]
    return load_outcomes(root, [*done["trial"], *done["teacher_trial"].dropna().unique()])


def _sources(plans: Sequence[Plan], names: Sequence[str]) -> Sources:
    """Of suites, by the names that were given: several files may be called alike."""
    students, suites = [planned for plan in plans for planned in plan.students], [plan.suite for plan in plans]
    of_these = f"  # of it: {suites[0].selection}" if suites[0].selection else ""
    files = {f"{name}.yaml" if name in suite_names() else name: suite.file for name, suite in zip(names, suites, strict=True)}
    return Sources(
        specs={planned.spec.id: planned.spec.model_dump(mode="json") for planned in students},
        environments={planned.spec.id: planned.record.environment.model_dump() for planned in students if planned.record},
        suite_files={name: file.read_text(encoding="utf-8") for name, file in files.items()},
        commands="\n".join(f"kdbench run {shlex.quote(name)}{of_these}" for name in names),
    )


def _agreed(options: Sequence[ReportOptions], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that suites give, of which each has one value; names and groups are put together.

    Raises:
        KdbenchError: two suites give one key different values, or one of those that are of all trials is not in every suite; and no
            change stands for them.
    """
    agreed: dict[str, Any] = {}
    for given in (suite.given for suite in options):
        for key, value in given.items():
            before = agreed.setdefault(key, value)
            if key in _JOINED:
                agreed[key] = {**before, **value}
                differ = {name for name, called in before.items() if value.get(name, called) != called}
                same = not (differ - changes[key].keys() if key == "names" and key in changes else differ)
            else:
                same = before == value
            if not same and (key not in changes or key in ("figures", "names")):
                raise KdbenchError(
                    f"the suites have different values of `{key}` in `report`. Give one on the command line, or make them equal."
                )
    for key in _OF_ALL:
        if key in agreed and key not in changes and not all(key in suite.given for suite in options):
            raise KdbenchError(f"only some of the suites have `{key}` in `report`. Give it on the command line, or in all of them.")
    return agreed


def _options(before: Mapping[str, Any], changes: Mapping[str, Any]) -> ReportOptions:
    """The keys of suites, with those on the command line in their place: of names and figures, single ones."""
    figures = figures_with(before.get("figures", {}), changes.get("figures", {}))
    names = {**before.get("names", {}), **changes.get("names", {})}
    given = {**before, **changes, **({"figures": figures} if figures else {}), **({"names": names} if names else {})}
    return validated(ReportOptions, given, source="options of the report") if given else DEFAULT


def _changed(before: Mapping[str, Any], options: ReportOptions, *, leave_out: str = "") -> dict[str, Any]:
    """The options that are not as they were `before`."""
    changed = {key: value for key, value in options.given.items() if key != leave_out and before.get(key) != value}
    if "names" in changed:
        changed["names"] = {name: text for name, text in changed["names"].items() if before.get("names", {}).get(name) != text}
    return changed


def _with_choice(title: str, *chosen: str) -> str:
    """The title, with what was chosen of the trials."""
    words = "; ".join(filter(None, chosen))
    return f"{title} ({words})" if words else title


def _words(changed: Mapping[str, Any], keys: Sequence[str] = ()) -> str:
    """Options in words, all or those of some keys: `methods kd, ft; metric accuracy`."""
    return "; ".join(f"{key.replace('_', ' ')} {_as_words(value)}" for key, value in changed.items() if not keys or key in keys)


def _as_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_as_words(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _identity(suites: Sequence[Suite], *, selection: str) -> ReportIdentity:
    texts = [f"the suite {suite.name} that ships with kdbench" if is_shipped(suite.file) else str(suite.file) for suite in suites]
    places = dict.fromkeys("shipped" if is_shipped(suite.file) else suite.file.parent.name for suite in suites)
    return ReportIdentity(
        "+".join(suite.name for suite in suites),
        suite=" and ".join(texts),
        place="+".join(places),
        content="+".join(suite.content for suite in suites),
        selection=selection,
    )
