"""`kdbench check`."""

from __future__ import annotations

from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import TRIAL_FAILED, app, print_json


@app.command(epilog=options.examples("check my_method.py", "check ft"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A method's name, or a Python file that registers methods.")],
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """Test a method against what kdbench promises of every method.

    It takes seconds, and says how to fix what fails. Of a file that registers several methods, each is tested; --json then gives
    their checks by method.
    """
    from kdbench import conformance
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    names = conformance.registered(name)
    found = {}
    for method in names:
        checks = conformance.check(method)
        if not as_json:
            print(*([f"{method}:"] if len(names) > 1 else []), conformance.as_text(checks), sep="\n", flush=True)
        found[method] = checks
    if as_json:
        tables = {method: conformance.as_json(checks) for method, checks in found.items()}
        print_json(tables if len(names) > 1 else tables[names[0]])
    if any(check.status == "fail" for checks in found.values() for check in checks):
        raise typer.Exit(TRIAL_FAILED)
