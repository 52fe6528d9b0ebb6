"""`kdbench check`."""

from __future__ import annotations

from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import TRIAL_FAILED, app, print_json


@app.command(epilog=options.examples("check my_method.py", "check ft"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A method's name, or the Python file that registers it.")],
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """Test a method against what kdbench promises of every method.

    It takes seconds, and says how to fix what fails.
    """
    from kdbench import conformance
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    checks = conformance.check(name)
    if as_json:
        print_json(conformance.as_json(checks))
    else:
        print(conformance.as_text(checks))
    if any(found.status == "fail" for found in checks):
        raise typer.Exit(TRIAL_FAILED)
