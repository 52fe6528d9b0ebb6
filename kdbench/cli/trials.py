"""`kdbench trials`: what a results folder holds, and taking things out of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import Group, app, open_suite, print_json
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.results.cleaning import Cleaning

trials = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Look at what a results folder holds, and tidy it up."
)
app.add_typer(trials, name="trials")


@trials.command("list", epilog=options.examples("trials list", "trials list mine.yaml --results elsewhere"))
def list_(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="SUITE", help="List only what these suites use, whatever suite trained it.")
    ] = None,
    results: options.ResultsOption = Path("results"),
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """List what a results folder holds, and what takes space."""
    from kdbench.catalogue.directory import directory_as_json, directory_as_text
    from kdbench.paths import expanded

    root, only = expanded(results), _used(suites, results, plugin)
    if as_json:
        print_json(directory_as_json(root, only=only))
    else:
        print(directory_as_text(root, only=only))


@trials.command(epilog=options.examples("trials show 1a2b3c4d"))
def show(
    trial: options.TrialArgument,
    results: options.ResultsOption = Path("results"),
    as_json: options.JsonOption = False,
) -> None:
    """Show one trial: its files, its record and its spec.

    `kdbench show trial` does the same.
    """
    from kdbench.catalogue.trials import describe_trial, trial_as_text

    described = describe_trial(trial, results)
    if as_json:
        print_json(described)
    else:
        print(trial_as_text(described))


@trials.command(epilog=options.examples("trials remove 1a2b3c4d --dry-run", "trials remove 1a2b3c4d 5e6f7a8b --yes"))
def remove(
    trial: Annotated[list[str], typer.Argument(metavar="TRIAL", help="Ids, or as much of them as no other trials share.")],
    results: options.ResultsOption = Path("results"),
    dry_run: options.DryRunOption = False,
    yes: options.YesOption = False,
) -> None:
    """Remove trials, such as one that went wrong.

    It prints what depends on them, and asks first.
    """
    from kdbench.paths import expanded
    from kdbench.results.cleaning import removal
    from kdbench.results.trial_folder import find_trial, trial_folders

    root = expanded(results)
    names = [find_trial(root, name).trial for name in trial]

    def plan() -> Cleaning:
        held = trial_folders(root)
        return removal(held, [held[name] for name in dict.fromkeys(names) if name in held])

    _clean(plan, root, dry_run=dry_run, yes=yes)


@trials.command(epilog=options.examples("trials prune --dry-run", "trials prune paper.yaml ablation.yaml --dry-run"))
def prune(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUITE", help="Also remove every trial that none of these suites uses. Name all you still need."),
    ] = None,
    results: options.ResultsOption = Path("results"),
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    dry_run: options.DryRunOption = False,
    yes: options.YesOption = False,
) -> None:
    """Remove what no run needs again.

    These are checkpoints of trials and stages that have ended, results that were replaced, and damaged files that were set aside.
    With suites, also the trials that none of them uses. It prints what it would remove, and asks first.
    """
    from kdbench.paths import expanded
    from kdbench.results.cleaning import pruning
    from kdbench.results.trial_folder import trial_folders

    root, used = expanded(results), _used(suites, results, plugin)
    _clean(lambda: pruning(trial_folders(root), used=used), root, dry_run=dry_run, yes=yes)


def _used(suites: Sequence[str] | None, results: Path, plugins: Sequence[Path]) -> set[str] | None:
    """The trials that suites use, those that tune them, and all their teachers; None where no suite is named."""
    if not suites:
        return None
    from kdbench.runner.plan import make_plan

    used = set()
    for name in suites:
        wanted = make_plan(*open_suite(name, results, None, None, plugins)).used
        while wanted:
            if (spec := wanted.pop()).id not in used:
                used.add(spec.id)
                wanted += spec.teachers
    return used


def _clean(plan: Callable[[], Cleaning], root: Path, *, dry_run: bool, yes: bool) -> None:
    """Say what would be removed, and remove it once that is confirmed."""
    from kdbench.catalogue.directory import cleaning_as_text
    from kdbench.results.cleaning import clean
    from kdbench.results.store import Store
    from kdbench.spec.record import PROTOCOL

    planned = plan()
    print(cleaning_as_text(planned, root))
    if dry_run or not (planned.folders or planned.files):
        print("Nothing was removed.")
        return
    if not yes and not sys.stdin.isatty():
        raise KdbenchError("nothing was removed. Look at the list above, then say so with --yes.")
    if not yes and not typer.confirm("Remove this?"):
        print("Nothing was removed.")
        return
    with Store(root, protocol=PROTOCOL).writing():
        now = plan()  # again, now that nobody else can change what is there
        if not now.within(planned):
            raise KdbenchError("nothing was removed: the trials have changed since they were listed. Run the command again.")
        clean(now)
    print("Removed.")
