"""`kdbench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import app, open_suite
from kdbench.errors import KdbenchError


@app.command(epilog=options.examples("report quick --format md,tex --output paper", "report results"))
def report(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE|DIR|FILE",
            help="A suite; or a results folder or an exported file: then all that is done.",
        ),
    ],
    results: options.ResultsOption = Path("results"),
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    formats: options.FormatsOption = "",
    output: options.OutputOption = None,
    published: options.PublishedOption = False,
    published_csv: options.PublishedFilesOption = [],  # noqa: B006  # typer copies it
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Print the tables of what is done; write them and the plots.

    It trains nothing.
    """
    from kdbench.paths import expanded
    from kdbench.report.command import directory_report, print_and_write, suite_report
    from kdbench.results.export import is_export
    from kdbench.suite.shipped import suite_names

    chosen = tuple(name.strip() for name in formats.split(",")) if formats else ()
    if (expanded(suite).is_dir() or is_export(Path(suite))) and suite not in suite_names():
        if methods is not None or seeds is not None or plugin:
            raise KdbenchError(
                "--methods, --seeds and --plugin have no effect on the report of a directory. Give a suite with them."
            )
        found = directory_report(Path(suite))
    else:
        from kdbench.runner.plan import make_plan

        loaded, store = open_suite(suite, results, methods, seeds, plugin)
        found = suite_report(make_plan(loaded, store), store)
    numbers = None
    if published or published_csv:
        from kdbench.report.published_numbers import read_published, shipped_numbers
        from kdbench.suite.plugins import load_shipped

        load_shipped()  # published numbers name methods and networks
        numbers = read_published([*([shipped_numbers()] if published else []), *published_csv])
    print_and_write(found, directory=output, formats=chosen, published=numbers)
