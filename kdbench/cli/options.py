"""The arguments and options of the command line: their names, what they take, their help."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from kdbench.cli import arguments
from kdbench.errors import nearest


def list_option(name: str, *, read: Callable[[str], object], metavar: str, help: str) -> Any:
    """An option with a list, read at once: after `kd, ft` the list is told before the word behind the space is."""

    def see(text: str | None) -> str | None:
        if text is not None:
            read(text)
        return text

    return typer.Option(name, metavar=metavar, help=help, callback=see)


SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="One of `kdbench list suites`, or a YAML file of your own, such as mine.yaml.")
]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="The folder where trials are kept.")]
TrialsFolderOption = Annotated[
    Path | None,
    typer.Option("--results", metavar="DIR", help="Of trials: the folder where they are kept; results unless given."),
]
MethodsOption = Annotated[
    str | None,
    list_option(
        "--methods",
        read=arguments.method_names,
        metavar="NAMES",
        help="Take these methods instead of the suite's, in this order: names with commas between them, such as scratch,kd,ft+kd.",
    ),
]
ReportMethodsOption = Annotated[
    str | None,
    list_option(
        "--methods",
        read=arguments.method_names,
        metavar="NAMES",
        help="Show these methods, in this order: names with commas between them, such as scratch,kd,ft+kd.",
    ),
]
SeedsOption = Annotated[
    str | None,
    list_option(
        "--seeds",
        read=arguments.seed_numbers,
        metavar="NUMBERS",
        help="Take these seeds instead of the suite's, such as 0,1,2 or 0-2.",
    ),
]
PluginOption = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="PATH",
        help="A Python file, or a folder of them, with methods, models or data sets of your own. Repeat the option for several. "
        "`plugins: [FILE]` in a suite does the same.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TrialArgument = Annotated[
    str, typer.Argument(metavar="TRIAL", help="A trial's id, or as much of its beginning as no other trial shares.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would happen, and change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAMES",
        help="Where to train: auto, cpu, cuda or cuda:INDEX. Or on several devices at once: all, or cuda:0,cuda:1, or cpu:2 for "
        "two processes on the CPU.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Where jobs run. here: in this process. local: in a process for each device. ray: on a Ray cluster. Unless given, it "
        "is here for one device, and local for several and with --claim.",
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Of the Ray cluster, such as 10.0.0.1:6379, or auto for the one that this machine is part of. Unless given, the "
        "engine ray uses this machine alone.",
    ),
]
ClaimOption = Annotated[
    bool,
    typer.Option(
        "--claim",
        help="Let other runs with --claim work on the same results folder, on this machine and on others. Each takes jobs that no "
        "other has, and the run ends when all trials have ended, whoever trained them.",
    ),
]
ClaimTimeoutOption = Annotated[
    str,
    typer.Option(
        "--claim-timeout",
        metavar="TIME",
        help="With --claim: take over the jobs of a run that has shown no sign of life for this time. Unless given, it is 10m.",
    ),
]
DeviceTimeoutOption = Annotated[
    str,
    typer.Option(
        "--device-timeout",
        metavar="TIME",
        help="End with status 1 if a GPU has not answered for this time. The same command continues from the last whole epoch.",
    ),
]
LanesOption = Annotated[
    int,
    typer.Option(
        "--lanes",
        min=0,
        metavar="NUMBER",
        help="How many students train at once, at most; 0 for as many as can. Fewer need less memory. It changes no result.",
    ),
]
StopAfterOption = Annotated[
    str,
    typer.Option("--stop-after", metavar="TIME", help="Stop at the end of the epoch after this time, such as 90s, 9m or 1h30m."),
]
RerunOption = Annotated[
    Literal["missing", "failed", "weights", "all"],
    typer.Option(
        "--rerun",
        help="Which students to train. missing: those that are not done. failed: these, and those that failed. weights: those "
        "that are not done, and finished ones that lack the weights which `keep_students: true` asks for. all: every student, "
        "from the start.",
    ),
]
FormatsOption = Annotated[
    str, typer.Option("--format", metavar="NAMES", help="Some of md,html,tex,csv,bib,png,pdf; all of them unless given.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="The folder to write to; reports/SUITE in the results folder unless given."),
]
PublishedOption = Annotated[bool, typer.Option("--published", help="Add a table of the published numbers that ship with kdbench.")]
PublishedFilesOption = Annotated[
    list[Path],
    typer.Option(
        "--published-csv", metavar="FILE", help="Add a table of published numbers of your own. Repeat the option for several files."
    ),
]
ImageOption = Annotated[
    str, typer.Option("--input", metavar="CxHxW", help="Of a model: the shape of the images, such as 3x224x224.")
]
ClassesOption = Annotated[
    int | None, typer.Option("--classes", min=1, metavar="NUMBER", help="Of a model: how many classes; 10 unless given.")
]
HookOption = Annotated[
    list[str],
    typer.Option(
        "--hook",
        metavar="NAME",
        help="Of a model: a module with which a group ends, or `raw`. Repeat the option, from shallow to deep.",
    ),
]
ModulesOption = Annotated[
    bool, typer.Option("--modules", help="Of a model: list its modules, of which some can be `hooks` in a suite.")
]

Listed = Literal["methods", "models", "datasets", "suites", "recipes", "examples", "trials"]
Shown = Literal["method", "model", "dataset", "suite", "recipe", "example", "trial"]
Written = Literal["method", "suite", "examples"]


def what_argument(kinds: object, *, help: str, example: str = "") -> Any:
    """An argument that is one of some words; any other is answered with a sentence that names them, and with an example."""
    words = get_args(kinds)

    def parse(text: str) -> str:
        if text not in words:
            hint = f"{nearest(text, words)}{example and f' {example}'}"
            raise typer.BadParameter(f"'{text}' is not known here.{hint} Choose one of {', '.join(words)}.")
        return text

    return typer.Argument(metavar="WHAT", parser=parse, help=help)


AS_IT_IS = "\b\n"
"""Begins a text of help whose lines are not filled anew."""


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return f"{AS_IT_IS}Examples:\n" + "\n".join(f"  kdbench {line}" for line in lines)
