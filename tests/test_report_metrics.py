"""Every metric can be compared: its column, its direction, its teacher, and what is said where scratch has none."""

import pandas as pd
import pytest
from test_report_tables import RESULTS

from kdbench.report import ReportOptions, claims, compare, gain_table, result_table
from kdbench.report.page.trials import trials_table
from kdbench.results.frames import COLUMNS
from kdbench.spec.metrics import METRICS, Metric

MEANS = {"scratch": 30.0, "at": 10.0, "kd": 20.0}


def measured(metric: Metric) -> pd.DataFrame:
    """What `metric` holds is like `MEANS`; a student from scratch has nothing to do with a teacher."""
    column = RESULTS["method"].map(MEANS) + RESULTS["seed"]
    columns = {metric.column: column.mask(RESULTS["method"] == "scratch") if metric.teacher_column is None else column}
    if metric.teacher_column:
        columns[metric.teacher_column] = 5.0
    return RESULTS.assign(**columns)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_can_be_compared(name: str) -> None:
    metric = METRICS[name]
    assert metric.column in COLUMNS and metric.teacher_column in (None, *COLUMNS)
    comparison = compare(measured(metric), options=ReportOptions(metric=name))
    table, gains = result_table(comparison), gain_table(comparison)
    assert table.title.startswith(metric.heading)
    cells = dict(zip(table.columns, table.rows[0].cells, strict=True))
    assert [column for column, cell in cells.items() if cell.bold] == ["KD" if name == "agreement" else "AT"]
    of_teacher = [column for column in cells if column.startswith("Teacher ")]
    assert of_teacher == ([f"Teacher {metric.short}"] if metric.teacher_column else [])
    assert (gains is None) == (metric.teacher_column is None)
    refused = f"No gain over scratch is given, because scratch has no {metric.noun}."
    assert (refused in table.notes) == (gains is None)


def test_a_method_that_validation_chooses_need_not_have_the_metric() -> None:
    errors = RESULTS["method"].map({"scratch": 1.0, "at": 3.0, "kd": 2.0})
    results = measured(METRICS["agreement"]).assign(validation_error_pct=errors)
    (claim,) = claims(compare(results, options=ReportOptions(metric="agreement")))
    assert claim.endswith(" The lowest mean validation error: scratch.")


def test_trials_have_the_decimals_of_the_metric_on_the_page() -> None:
    results = measured(METRICS["nll"])
    table = trials_table(compare(results, options=ReportOptions(metric="nll")))
    place = table.columns.index(METRICS["nll"].heading)
    assert table.rows[0].cells[place].text == f"{results['test_nll'].iloc[0]:.4f}"


def test_a_difference_of_nothing_has_no_minus() -> None:
    assert METRICS["error"].interval((-2e-14, -0.0)) == "+0.00 to +0.00"
    assert METRICS["error"].difference(-0.004) == "-0.00", "it is below 0"
