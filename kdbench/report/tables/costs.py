"""The table of what each method costs, in training and when its student is deployed."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from kdbench.report.choice import Place
from kdbench.report.compare import Comparison
from kdbench.report.tables.cells import method_row, on_data, pair_heading, short_count
from kdbench.report.tables.table import NONE, Cell, Row, Table
from kdbench.report.timing import stacked, timing_notes

_ALONE = (
    "All numbers are medians over seeds. Training: what the method costs when it trains alone, with the teacher's forward "
    "passes. Images/s is the speed of the main training; the time includes the stages before it. "
)

_STACKED = (
    "All numbers are medians over seeds. Training: the seconds of a stacked student are its share of a block of eight places. They "
    "depend on how many students trained in it, and are not what the method costs alone: so no time stands against another, and "
    "images/s must not be compared. "
)

_ONE_SPEED = "Inference: one speed for each network, over all trials in which it is the student that is deployed, or the teacher."

_INFERENCE = ("Inference\nimages/s,\nstudent", "Inference\nimages/s,\nteacher")


def cost_table(comparison: Comparison) -> Table:
    """What each method costs: training speed alone and against the baseline, extra parameters; and what inference gains.

    Speeds are medians over seeds and stand apart by environment. Times of stacked students do not stand against others, and where
    no time does, there is no such column.
    """
    environments = comparison.results.loc[comparison.results["status"] == "done", "environment"].unique()
    several = len(environments) > 1
    timed = pd.concat([pair.timed for pair in comparison.pairs])
    timed = timed[~timed.index.duplicated()]  # a student without a teacher stands in several pairs
    rows: list[Row] = []
    for pair in comparison.pairs:
        first = True
        for environment, done in pair.done.groupby("environment", sort=False):
            baseline = done[done["label"] == comparison.baseline]
            for label in comparison.labels:
                trials = done[done["label"] == label]
                if len(trials):
                    where = (Cell(str(environment)),) if several else ()
                    beside = timed[(timed["environment"] == environment) & (timed["dataset"] == pair.place.dataset)]
                    cells = (Cell(label), *where, *_cost_cells(trials, baseline, beside, pair.place))
                    rows.append(method_row(comparison, pair, cells, first=first, environment=str(environment)))
                    first = False
    naming = (*pair_heading(comparison), "Method", *(["Measured on"] if several else []))
    columns = (*naming, "Training\nimages/s", f"Time against\n{comparison.baseline}", "Extra\nparameters", *_INFERENCE)
    against = len(naming) + 1
    if not any(row.cells[against].values for row in rows):
        columns = (*columns[:against], *columns[against + 1 :])
        rows = [replace(row, cells=(*row.cells[:against], *row.cells[against + 1 :])) for row in rows]
    notes = [
        (_STACKED if stacked(comparison.results.query("status == 'done'")) else _ALONE) + _ONE_SPEED,
        "Extra parameters: trained together with the student and dropped after training.",
    ]
    notes += [*_deployed(comparison), *timing_notes(comparison)]
    if len(environments) == 1:
        notes.append(f"Measured on {environments[0]}.")
    title = f"Cost of training and inference{on_data(comparison, with_pair=True)}"
    return Table("cost", title, columns, tuple(rows), tuple(notes), naming=len(naming))


def _deployed(comparison: Comparison) -> list[str]:
    """Which methods deploy another network than the student."""
    notes = []
    for pair in comparison.pairs:
        sizes = pair.done.groupby("label", sort=False)["student_params"].median()
        own = pair.done["student_params"].mode()
        others = [f"{label} {short_count(size)}" for label, size in sizes.dropna().items() if size != own.iloc[0]]
        if others:
            at = f" ({pair.name})" if len(comparison.pairs) > 1 else ""
            notes.append(
                f"The student has {short_count(own.iloc[0])} parameters. "
                f"Some methods deploy another number: {', '.join(others)}{at}."
            )
    return notes


def _cost_cells(trials: pd.DataFrame, baseline: pd.DataFrame, timed: pd.DataFrame, place: Place) -> Iterator[Cell]:
    """Of the trials of one method; inference is that of all that were `timed` of the same networks, in whichever pair."""
    same = timed[(timed["student"] == place.student) & timed["student_params"].isin(trials["student_params"])]

    def median(column: str, of: pd.DataFrame = trials) -> float:
        known = of[column].dropna()
        return float(known.median()) if len(known) else math.nan

    speed, extra = median("train_images_per_s"), median("extra_params")
    relative = math.nan if stacked(trials) else median("train_s") / median("train_s", baseline)
    yield _number(speed, f"{speed:,.0f}")
    yield _number(relative, f"{relative:.2f}\N{MULTIPLICATION SIGN}")
    yield _number(extra, NONE if math.isnan(extra) else short_count(extra))
    taught = timed[timed["teacher"] == place.teacher] if trials["teacher"].notna().any() else trials
    for inference in (median("inference_images_per_s", same), median("teacher_inference_images_per_s", taught)):
        yield _number(inference, f"{inference:,.0f}")


def _number(value: float, text: str) -> Cell:
    return Cell(NONE) if math.isnan(value) else Cell(text, values={"value": float(value)})
