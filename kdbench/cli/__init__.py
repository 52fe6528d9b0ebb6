"""The command line, a file for each command. Heavy imports stand inside the commands, so that `--help` is instant."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

from kdbench import signals
from kdbench.cli.app import ALL_DONE, BAD_USAGE, STOPPED, TRIAL_FAILED, app, version
from kdbench.errors import KdbenchError, system_error

__all__ = ["ALL_DONE", "BAD_USAGE", "STOPPED", "TRIAL_FAILED", "app", "main", "version"]

COMMANDS = ("run", "status", "plan", "report", "list", "show", "check", "new", "merge", "trials", "export", "deploy")
"""In the order of `kdbench --help`."""

for name in COMMANDS:
    import_module(f"kdbench.cli.{name}")  # it adds the command to the application


def main() -> None:
    """The entry point: a user's mistake is one line on standard error and exit status 2, and a signal that asks to stop is 3."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started this closed it; a file of the results would get its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not every locale has an arrow, and the run has trained by then
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="kdbench: %(message)s")
    stop = signals.Stop()
    stop.listen()
    try:
        if sys.flags.optimize > 1:  # help, checks and what reports say of methods are docstrings
            raise KdbenchError("kdbench needs the docstrings that Python drops with -OO. Leave -OO out, and unset PYTHONOPTIMIZE.")
        with stop.heard():
            app(prog_name="kdbench", obj=stop)
    except (KdbenchError, OSError) as problem:
        print(f"error: {system_error(problem) if isinstance(problem, OSError) else problem}", file=sys.stderr)
        sys.exit(BAD_USAGE)
    except signals.Interrupted as interruption:
        with suppress(OSError):  # the terminal may be gone
            print(interruption, file=sys.stderr)
        sys.exit(STOPPED)
