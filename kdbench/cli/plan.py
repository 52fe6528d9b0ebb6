"""`kdbench plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import app, open_suite, print_json, to_stderr
from kdbench.errors import KdbenchError, refuse

CHECKED = "checked: `kdbench run` can use these networks, weights and pairs. Images were listed, not decoded."


@app.command(epilog=options.examples("plan quick", "plan mine.yaml --check", "plan mine.yaml --device cuda:0,cuda:1"))
def plan(
    suite: options.SuiteArgument,
    results: options.ResultsOption = Path("results"),
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    devices: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAMES",
            help="Also say how long it takes on several devices at once, named as for `run`: all, or cuda:0,cuda:1, or cpu:2.",
        ),
    ] = None,
    difference: Annotated[
        float | None,
        typer.Option("--difference", min=1e-6, metavar="POINTS", help="Say how many seeds find a difference of so many points."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Also build every network, weights file and pair, and say all that `run` would refuse or note of them."
        ),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Say what a suite would train, and how long it would take.

    It also says which differences the seeds can show. It trains nothing. Where `run` would refuse the suite, it ends with status 2.
    """
    from kdbench.suite.shipped import find_suite

    find_suite(suite)  # before PyTorch is loaded

    from kdbench.catalogue import plan as view
    from kdbench.catalogue.images import contents_of
    from kdbench.catalogue.power import power_of
    from kdbench.data import Contents
    from kdbench.runner.cost import costs
    from kdbench.runner.engines.local import place_names
    from kdbench.runner.image_counts import refuse_other_counts
    from kdbench.runner.plan import Rerun, make_plan
    from kdbench.training.arithmetic import without_effect
    from kdbench.training.device import choose_device, named_device

    loaded, store = open_suite(suite, results, methods, seeds, plugin)
    if loaded.report.model_fields_set:
        from kdbench.report.contents import check_options  # which imports pandas

        check_options(loaded, store)
    planned = make_plan(loaded, store)
    names = place_names(devices) if devices else ["auto"]
    at_once = len(names)
    contents = contents_of(loaded.source, cache=store.cache, tuning=loaded.tuning)
    estimates = costs(planned, store, devices=at_once)
    of_tuning = costs(planned.tuning, store, devices=at_once) if planned.tuning else []
    power = power_of(planned, store, difference=difference)
    device = choose_device("auto") if names[0] == "auto" else named_device(names[0])  # which need not be on this machine
    phases = planned.phases(Rerun.MISSING)
    recipes = [spec.recipe for part, students in phases for spec in part.trained_specs(students)]
    without_images = [contents] if phases and isinstance(contents, KdbenchError) else []
    other_images = []
    if isinstance(contents, Contents):
        try:
            refuse_other_counts(store, loaded.trials[0].dataset, contents, loaded.source[1])
        except KdbenchError as difference_in_images:
            other_images.append(difference_in_images)
    no_folder = [problem] if (problem := store.why_no_folder()) else []
    refused = [*without_effect(recipes, device), *without_images, *other_images, *no_folder]
    notes = [f"`kdbench run` refuses this here: {problem}".rstrip(".") for problem in refused]
    if not as_json:
        print(view.plan_as_text(planned, estimates, None if without_images else contents, power, of_tuning), flush=True)
    try:
        if check:
            from kdbench.runner.preflight import preflight  # which builds networks

            tried = [
                preflight(part, students, cache=store.cache, device=device, download=False, say=to_stderr)
                for part, students in phases or [(planned, [])]
            ]
            told = tuple(view.plan_notes(planned, contents))  # of a method, and here of each of its pairs
            found = dict.fromkeys(note for _, of_part in tried for note in of_part if not note.endswith(told))
            notes += found
            if not as_json:
                print(*(f"note: {note}." for note in found), CHECKED, sep="\n")
    finally:
        if as_json:
            print_json(view.plan_as_json(planned, estimates, contents, power, of_tuning, notes))
    refuse(loaded.name, refused)
