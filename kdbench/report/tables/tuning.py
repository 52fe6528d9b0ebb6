"""The table of what was tried to choose the parameters of each method: errors on held-out training images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.tables.cells import held_out_notes, method_row, on_data, pair_heading
from kdbench.report.tables.table import NONE, Cell, Row, Table
from kdbench.results.method_labels import plain_label
from kdbench.wording import counted


def tuning_table(comparison: Comparison) -> Table | None:
    """By pair and method each setting that was tried, its mean validation error in percent, and which was chosen.

    None where no suite of the comparison was tuned.

    Raises:
        KdbenchError: methods of one pair had unequal budgets, and a suite does not say `unequal: true`.
    """
    tried = _shown(comparison)
    if tried.empty or not tried["tuned"].any():
        return None
    rows: list[Row] = []
    unequal: list[str] = []
    near: list[bool] = []
    for pair in comparison.pairs:
        here = tried[_of(pair, tried)]
        unequal += _unequal(pair, here)
        here = here.assign(near=_near(here)).drop_duplicates([name for name in here if name != "suite"])
        choices = here[here["trials"] > 0].groupby(["suite", "method"])[["chosen", "near"]].any()
        near += choices.loc[choices["chosen"], "near"].tolist()
        found: Any  # a row, which pandas has no types for
        for place, found in enumerate(here.itertuples()):
            name = comparison.options.names.get(found.method, plain_label(found.method, comparison.options.names))
            new = place == 0 or here["method"].iloc[place - 1] != found.method
            error, outcome = _outcome(found)
            cells = (Cell(name if new else ""), Cell(_parameters(found), bold=error.bold), error)
            keys = {"method": name, "setting": found.setting, "outcome": outcome}
            rows.append(method_row(comparison, pair, cells, first=place == 0, **keys))
    if unequal and not tried.loc[tried["tuned"], "unequal"].all():
        raise KdbenchError(
            f"one table cannot compare methods that were tuned with unequal budgets: {'; '.join(unequal)}. Give each the same "
            "number of settings, held-out images and number of tuning seeds, or write `unequal: true` in `tune`, which the table "
            "then says."
        )
    notes = [
        *(["Bold is the setting that was chosen."] if near else []),
        *_notes(tried, at_most="at most " if unequal else ""),
        *(f"Unequal budgets: {text}. This favours the methods with more settings." for text in unequal),
        *_doubts(tried, near),
    ]
    naming = (*pair_heading(comparison), "Method", "Setting")
    title = f"Settings that were tried{on_data(comparison, with_pair=True)}, mean validation error over tuning seeds (%, ↓)"
    return Table("tuning", title, (*naming, "Validation\nerror"), tuple(rows), tuple(notes), naming=len(naming))


def tuning_notes(comparison: Comparison) -> list[str]:
    """A sentence for the table of the metric: how parameters were chosen; none where no suite was tuned."""
    tried = _shown(comparison)
    if tried.empty or not tried["tuned"].any():
        return []
    unequal = [text for pair in comparison.pairs for text in _unequal(pair, tried[_of(pair, tried)])]
    equal = "the same number of settings for each method that has parameters"
    budget = f"unequal budgets ({'; '.join(unequal)})" if unequal else equal
    return [f"Parameters were chosen on held-out training images, with {budget}: see the table of settings."]


def _shown(comparison: Comparison) -> pd.DataFrame:
    """The settings of the methods that the comparison shows."""
    tried = comparison.tuning
    return tried if tried.empty else tried[tried["method"].isin(comparison.results["method"])]


def _of(pair: PairTrials, tried: pd.DataFrame) -> pd.Series[bool]:
    return (tried[["dataset", "teacher", "student"]] == list(pair.place)).all(axis=1)


def _unequal(pair: PairTrials, tried: pd.DataFrame) -> list[str]:
    """How many settings each method had in each suite, and how they were tried, where any of that differs.

    A method that has no parameters and one setting has nothing to tune.
    """
    by_method = ["suite", "method", "tunable", "tuned", "validation", "tuning_seeds"]
    found = tried.groupby(by_method, sort=False).size().reset_index(name="settings")
    found = found[found["tunable"] | (found["settings"] > 1)]
    rules = found.loc[found["tuned"], ["validation", "tuning_seeds"]].drop_duplicates()
    if found["settings"].nunique() < 2 and len(rules) < 2:
        return []

    def told(row: Any) -> str:
        text = f"{plain_label(row.method)} {counted(row.settings, 'setting')}"
        if row.tuned and len(rules) > 1:
            text += f" on {100 * row.validation:g} % of the training images with {counted(row.tuning_seeds, 'seed')}"
        return f"{text} in {Path(row.suite).stem}" if found["suite"].nunique() > 1 else text

    return [f"{pair.name}: {', '.join(map(told, found.itertuples()))}"]


def _parameters(found: Any) -> str:
    """Those of a setting that are not the method's defaults."""
    given = found.setting.removeprefix(found.method).removeprefix(" (").removesuffix(")")
    return given or ("defaults" if found.tunable else NONE)


def _outcome(found: Any) -> tuple[Cell, str]:
    """The cell of the validation error of a row of the settings, and what became of the setting."""
    if not found.trials:
        return Cell(NONE), "nothing to choose"
    if not pd.isna(found.failure):
        return Cell("failed", values={"n": 0}), "not chosen"
    if found.missing:
        return Cell("missing", values={"n": 0}), "not chosen"
    values = {"value": found.validation_error_pct, "n": found.trials}
    error = Cell(f"{found.validation_error_pct:.2f}", bold=found.chosen, values=values, mark="*" if found.near else "")
    return error, "chosen" if found.chosen else "not chosen"


def _near(tried: pd.DataFrame) -> pd.Series[bool]:
    """Whether a setting lost by no more than the standard error that so few held-out images give its own error."""
    error = tried["validation_error_pct"].astype(float)
    lead = error - error.where(tried["chosen"]).groupby([tried["suite"], tried["method"]]).transform("min")
    of_images = (error * (100 - error) / (tried["validation_images"].astype(float) - 1)) ** 0.5
    return (lead <= of_images + 1e-9) & ~tried["chosen"]  # one image more than none is just as much


def _doubts(tried: pd.DataFrame, near: Sequence[bool]) -> list[str]:
    """What one held-out image is in points, and in how many choices another setting is as good as the chosen one."""
    notes = held_out_notes(tried)
    if any(near):
        notes.append(
            "* Its error is above that of the chosen setting by no more than its own standard error on so few images. "
            f"In {sum(near)} of {counted(len(near), 'choice')} there is such a setting: which of them was chosen may be chance."
        )
    return notes


def _notes(tried: pd.DataFrame, *, at_most: str) -> list[str]:
    notes = []
    rules = tried.loc[tried["tuned"], ["budget", "validation", "seeds"]].drop_duplicates()
    for budget, validation, seeds in rules.itertuples(index=False):
        notes.append(
            f"Budget: {at_most}{budget} settings for each method that has parameters, the suite's own among them. They were tried "
            f"with {seeds} on {100 * validation:g} % of the training images, on which neither these students nor their teachers "
            "were trained. The lowest mean is chosen, of equal ones the first. No test image was used. The trials of the other "
            "tables were trained on all images, with other seeds."
        )
    given = tried.loc[tried["given_teacher"] & (tried["trials"] > 0), "teacher"].unique()
    if len(given):
        notes.append(
            f"{', '.join(given)}: a teacher that is given by its weights may have seen the held-out images. This may favour "
            "settings that follow it closely."
        )
    failed = tried[tried["failure"].notna()]
    return [*notes, *(f"Failed in tuning, so never chosen: {row.setting}: {row.failure}." for row in failed.itertuples())]
