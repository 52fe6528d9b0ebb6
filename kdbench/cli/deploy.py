"""`kdbench deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdbench.cli import options
from kdbench.cli.app import app


@app.command(epilog=options.examples("deploy 1a2b3c4d --format onnx", "deploy 1a2b --format pt2 --suite mine.yaml --output app"))
def deploy(
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, or as much of its beginning as no other trial shares.")
    ],
    kind: Annotated[
        Literal["safetensors", "onnx", "pt2"],
        typer.Option("--format", help="onnx: for ONNX Runtime and others. pt2: of torch.export. safetensors: the tensors alone."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="The folder to write to; deployed/TRIAL unless given.")
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            metavar="SUITE",
            help="A suite that says where the test images lie, if the record does not, and has the file of a network of your own.",
        ),
    ] = "",
    results: options.ResultsOption = Path("results"),
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Write a student or a teacher as a file for other programs.

    As onnx and pt2 it takes images as bytes: normalisation is part of the file. A JSON file beside it names the classes, the size
    of images, and the test error, which is measured again on the written file. The suite must have kept its students:
    `keep_students: true`.
    """
    from kdbench.paths import expanded
    from kdbench.results.trial_folder import find_trial
    from kdbench.runner.deploy import deploy as write
    from kdbench.runner.deploy import deployed_as_lines
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    load_plugins(plugin)
    folder = find_trial(expanded(results), trial)
    directory = expanded(output) if output else Path("deployed") / folder.trial
    made = write(folder, kind=kind, directory=directory, suite=load_suite(suite) if suite else None)
    print("\n".join(deployed_as_lines(made)))
