"""The table of what the validation split says: which method, parameters and epoch to choose without a look at the test images."""

from collections.abc import Sequence

import pandas as pd

from kdbench.report.compare import PairTrials, compare
from kdbench.report.tables import Cell, Table, mean_and_std, method_row, on_data, pair_heading

_NOTES = (
    "Validation error: on training images that were held out and not trained on. Bold marks the lowest mean of each pair. Use it "
    "to choose a method or its parameters without looking at the test images.",
    "Epoch chosen: for each seed, the first epoch with the lowest validation error. The table gives the earliest and the latest.",
)


def selection_table(results: pd.DataFrame, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str] = ()) -> Table | None:
    """By method the validation error of the last epoch, and the test error at the epoch that validation chooses, in percent.

    Means ± sample standard deviations over seeds; None where no data set has a validation split.

    Raises:
        KdbenchError: the trials are not comparable, or a pair has none.
    """
    comparison = compare(results, pairs=pairs, methods=methods)
    rows = []
    for pair in comparison.pairs:
        labels = [label for label in comparison.labels if len(pair.by_seed(label, "validation_error_pct"))]
        ranked = pair.ranked("validation_error_pct").round(2)
        for label in labels:
            bold = len(ranked) > 1 and ranked.get(label) == ranked.min()
            rows.append(method_row(comparison, pair, (Cell(label), *_cells(pair, label, bold=bold)), first=label == labels[0]))
    if not rows:
        return None
    errors = ("Validation error,\nlast epoch", "Epoch\nchosen", "Test error,\nepoch chosen", "Test error,\nlast epoch")
    columns = (*pair_heading(comparison), "Method", *errors)
    title = f"Selection by the validation split (%){on_data(comparison, with_pair=True)}, mean ± standard deviation over seeds"
    return Table("selection", title, columns, tuple(rows), _NOTES, naming=columns.index("Method") + 1)


def _cells(pair: PairTrials, label: str, *, bold: bool) -> tuple[Cell, ...]:
    planned = pair.trials["seed"].nunique()
    chosen, last = (pair.by_seed(label, column) for column in ("selected_test_error_pct", "test_error_pct"))
    epochs = pair.by_seed(label, "selected_epoch")
    first, final = int(epochs.min()), int(epochs.max())
    validation = mean_and_std(pair.by_seed(label, "validation_error_pct"), planned)
    return (
        Cell(validation.text, bold=bold, values=validation.values),
        Cell(str(first) if first == final else f"{first} to {final}", values={"first": first, "final": final}),
        mean_and_std(chosen, planned),
        mean_and_std(last, planned),
    )
