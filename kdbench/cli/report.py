"""`kdbench report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.cli import options
from kdbench.cli.app import app
from kdbench.cli.arguments import method_names, seed_numbers
from kdbench.cli.report_options import with_report_options


@app.command(
    epilog=options.examples(
        "report quick --format md,tex --output paper",
        "report quick --metric accuracy --methods scratch,kd,ft",
        "report first.yaml second.yaml",
        "report quick --format pdf --figure forest --size 3.3x2.4 --no-title",
        "report results --dataset cifar100 --pair 'resnet56 -> resnet20'",
    )
)
@with_report_options
def report(
    suite: Annotated[
        list[str],
        typer.Argument(
            metavar="SUITE|DIR|FILE",
            help="Suites; or a results folder or an exported file: then all that is done in it.",
        ),
    ],
    results: options.ResultsOption = Path("results"),
    methods: options.ReportMethodsOption = None,
    seeds: options.SeedsOption = None,
    formats: options.FormatsOption = "",
    output: options.OutputOption = None,
    published: options.PublishedOption = False,
    published_csv: options.PublishedFilesOption = [],  # noqa: B006  # typer copies it
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    *,
    report_keys: Mapping[str, Any],
) -> None:
    """Print the tables of what is done; write them and the figures.

    It trains nothing. Options for what is shown, and how, stand for the keys of `report` in the suite.
    """
    from kdbench.report.command import print_and_write
    from kdbench.report.contents import read_report

    chosen = tuple(name.strip() for name in formats.split(",")) if formats else ()
    changes = {**report_keys, **({} if methods is None else {"methods": method_names(methods)})}
    found = read_report(suite, results, seeds=[] if seeds is None else seed_numbers(seeds), changes=changes, plugins=plugin)
    numbers = None
    if published or published_csv:
        from kdbench.report.published_numbers import read_published, shipped_numbers
        from kdbench.suite.plugins import load_shipped

        load_shipped()  # published numbers name methods and networks
        numbers = read_published([*([shipped_numbers()] if published else []), *published_csv])
    print_and_write(found, directory=output, formats=chosen, published=numbers)
