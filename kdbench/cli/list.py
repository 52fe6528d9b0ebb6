"""`kdbench list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import app, open_suite, print_json
from kdbench.errors import KdbenchError


@app.command("list", epilog=options.examples("list methods", "list trials mine.yaml"))
def list_(
    what: Annotated[options.Listed, options.what_argument(options.Listed, help="What to list.")],
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Of trials, and needed there: the suite that they belong to.")] = "",
    results: options.TrialsFolderOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """List what there is, one line each."""
    if what != "trials" and (suite or results):
        raise KdbenchError(f"a suite and --results have no effect on the list of {what}. Leave them out.")
    if what == "trials":
        if not suite:
            raise KdbenchError("name the suite whose trials to list, such as `kdbench list trials mine.yaml`.")
        from kdbench.catalogue import trials
        from kdbench.runner.plan import make_plan

        planned = make_plan(*open_suite(suite, results or Path("results"), None, None, plugin))
        if as_json:
            print_json(trials.trials_as_json(planned))
        else:
            print(trials.trials_as_text(planned))
        return
    from kdbench.catalogue.listing import listing
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    entries = listing(what)
    if as_json:
        print_json(entries)
    else:
        width = max(len(entry["name"]) for entry in entries)
        for entry in entries:
            print(f"{entry['name']:<{width}}  {entry['about']}")
