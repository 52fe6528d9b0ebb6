"""The table of what the validation split says: which method, parameters and epoch to choose without a look at the test images."""

from dataclasses import replace

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.tables.cells import held_out_notes, mean_and_std, method_row, on_data, pair_heading
from kdbench.report.tables.table import Cell, Table
from kdbench.spec.metrics import METRICS, Metric


def tested(metric: Metric) -> Metric:
    """The metric; the error where that is measured at the last epoch alone."""
    return metric if metric.column == "test_error_pct" else METRICS["error"]


def held_out(metric: Metric) -> Metric:
    """The validation error, or the accuracy where that is compared."""
    return replace(tested(metric), column="validation_error_pct", noun=f"validation {tested(metric).short}")


def selection_table(comparison: Comparison) -> Table | None:
    """By method the validation error of the last epoch, and the test error at the epoch that validation chooses, in percent; or the
    accuracies, where these are compared.

    Means ± sample standard deviations over seeds; None where no data set has a validation split.
    """
    metric = tested(comparison.metric)
    rows = []
    for pair in comparison.pairs:
        labels = [label for label in comparison.labels if len(pair.by_seed(label, held_out(metric)))]
        best = pair.best(held_out(metric))
        for label in labels:
            cells = (Cell(label), *_cells(pair, label, metric, bold=label in best))
            rows.append(method_row(comparison, pair, cells, first=label == labels[0]))
    if not rows:
        return None
    headings = (
        f"Validation {metric.short},\nlast epoch",
        "Epoch\nchosen",
        f"Test {metric.short},\nepoch chosen",
        f"Test {metric.short},\nlast epoch",
    )
    notes = (
        f"Validation {metric.short}: on training images that were held out and not trained on. Bold marks the {metric.best} mean "
        "of each pair. Use it to choose a method or its parameters without looking at the test images.",
        f"Epoch chosen: for each seed, the first epoch with the {metric.best} validation {metric.short}. The table gives the "
        "earliest and the latest.",
        *held_out_notes(comparison.results, metric.short),
    )
    columns = (*pair_heading(comparison), "Method", *headings)
    unit = f"{metric.unit}, {metric.arrow}"
    title = f"Selection by the validation split ({unit}){on_data(comparison, with_pair=True)}, mean ± standard deviation over seeds"
    return Table("selection", title, columns, tuple(rows), notes, naming=columns.index("Method") + 1)


def _cells(pair: PairTrials, label: str, metric: Metric, *, bold: bool) -> tuple[Cell, ...]:
    planned = pair.trials["seed"].nunique()
    epochs = pair.column(label, "selected_epoch")
    first, final = int(epochs.min()), int(epochs.max())
    validation = mean_and_std(pair.by_seed(label, held_out(metric)), planned, decimals=metric.decimals)
    return (
        Cell(validation.text, bold=bold, values=validation.values),
        Cell(str(first) if first == final else f"{first} to {final}", values={"first": first, "final": final}),
        mean_and_std(pair.by_seed(label, replace(metric, column="selected_test_error_pct")), planned, decimals=metric.decimals),
        mean_and_std(pair.by_seed(label, metric), planned, decimals=metric.decimals),
    )
