"""`kdbench run`."""

from __future__ import annotations

from pathlib import Path

import typer

from kdbench import signals
from kdbench.cli import arguments, options
from kdbench.cli.app import STOPPED, TRIAL_FAILED, app, loading, open_suite
from kdbench.errors import KdbenchError


@app.command(
    epilog=options.examples("run quick --methods scratch,kd,ft --seeds 0-2", "run mine.yaml --results elsewhere --stop-after 1h")
)
def run(
    context: typer.Context,
    suite: options.SuiteArgument,
    results: options.ResultsOption = Path("results"),
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    device: options.DeviceOption = "auto",
    engine: options.EngineOption = "",
    address: options.AddressOption = "",
    lanes: options.LanesOption = 0,
    claim: options.ClaimOption = False,
    claim_timeout: options.ClaimTimeoutOption = "",
    device_timeout: options.DeviceTimeoutOption = "10m",
    stop_after: options.StopAfterOption = "",
    rerun: options.RerunOption = "missing",
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Train what a suite still needs, then write its report.

    If you stop a run, the same command continues it.
    """
    from kdbench.suite.shipped import find_suite

    if claim_timeout and not claim:
        raise KdbenchError(f"--claim-timeout: '{claim_timeout}' is of runs that claim. Give --claim with it, or leave it out.")
    timeout = arguments.seconds(claim_timeout or "10m", "--claim-timeout")
    answer_within = arguments.seconds(device_timeout, "--device-timeout")
    limit = arguments.seconds(stop_after) if stop_after else None
    find_suite(suite)  # before PyTorch is loaded
    with loading("every network and pair of the suite is tried, and training starts."):
        from kdbench.report.command import print_and_write
        from kdbench.report.contents import check_options, read_report
        from kdbench.results.layout import FAILURE
        from kdbench.runner.plan import Rerun, Status, make_plan
        from kdbench.runner.progress import for_stream, outcome_text
        from kdbench.runner.run import Options, execute

    loaded, store = open_suite(suite, results, methods, seeds, plugin, read_only=False)
    check_options(loaded, store)
    progress, stop = for_stream(), context.ensure_object(signals.Stop)
    again = "the same command" if rerun == "missing" else "the same command without --rerun"
    with (
        signals.on_stop(f"stopped; {again} continues from the last whole epoch."),
        stop.at_epochs("stopping at the end of this epoch; Ctrl-C again, or another signal, stops at once.") as asked,
        stop.heard(),
    ):
        wanted = Options(
            device=device,
            lanes=lanes,
            stop_after_s=limit,
            stop=asked,
            rerun=Rerun(rerun),
            engine=engine,
            claim=claim,
            claim_timeout_s=timeout,
            device_timeout_s=answer_within,
            address=address,
        )
        try:
            finished = execute(loaded, store, options=wanted, progress=progress)
        finally:
            progress.end()
    left = f"every trial has ended, and {again} makes the report." if finished else f"{again} continues."
    with signals.on_stop(f"stopped while the report was made; {left}"), stop.heard():
        planned = make_plan(loaded, store)
        if any(trial.status is Status.DONE for trial in planned.students):
            chosen = {} if methods is None else {"methods": arguments.method_names(methods)}
            numbers = [] if seeds is None else arguments.seed_numbers(seeds)
            print_and_write(read_report([suite], results, seeds=numbers, changes=chosen, plugins=[]))
    if not finished:
        print(f"stopped before the end; {again} continues.")
        raise typer.Exit(STOPPED)
    if without_weights := planned.without_weights_text:
        print(without_weights)
    trials = [trial for part in (planned.tuning, planned) if part for trial in (*part.teachers, *part.students)]
    if failed := [(record, trial.teaches) for trial in trials if (record := trial.record) and record.reason]:
        for record, teaches in failed:
            print(outcome_text(record, teaches=teaches))
            if (log := store.folder(record.trial) / FAILURE).exists():
                print(f"  {log}")
        print(f"{len(failed)} failed; `--rerun failed` tries again.")
        raise typer.Exit(TRIAL_FAILED)
