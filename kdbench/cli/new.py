"""`kdbench new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import app
from kdbench.errors import KdbenchError


@app.command(epilog=options.examples("new suite mine", "new method my_method", "new examples"))
def new(
    what: Annotated[options.Written, options.what_argument(options.Written, help="What to write.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a method or a suite: what to call it.")] = "",
) -> None:
    """Write a method, a suite or the examples into this folder.

    A method comes with its test. Both the method and the suite work as they are, and say what to change.
    """
    from kdbench.conformance.scaffold import new_method
    from kdbench.suite.scaffold import new_examples, new_suite

    if (what == "examples") == bool(name):
        raise KdbenchError(
            "the examples need no name: they go into the folder examples. Leave it out."
            if name
            else f"give the {what} a name, such as `kdbench new {what} my_{what}`."
        )
    try:
        if what == "method":
            files, then = new_method(name, Path()), f"kdbench check {name}.py"
        elif what == "suite":
            files = new_suite(name, Path())
            then = f"kdbench plan {files[0]}"
        else:
            files, then = new_examples(Path("examples")), "kdbench plan examples/suite.yaml --plugin examples/cosine.py"
    except OSError as problem:
        raise KdbenchError(f"nothing can be written here ({problem.strerror}). Change to a folder of your own.") from None
    for file in files:
        print(f"wrote {file}")
    print(f"next: {then}")
