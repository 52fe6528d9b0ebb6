"""The page of the results folder: its files, statuses, the keys of a record and the columns of the frame."""

from collections.abc import Mapping

from pydantic import BaseModel

from kdbench.docs.markdown import code, page, plain, table, texts_under
from kdbench.results.export import FURTHER, KINDS, SCHEMA, VERSION, VERSION_COLUMN
from kdbench.results.frames import COLUMNS, CURVES
from kdbench.results.layout import FILES
from kdbench.runner.plan import Rerun, Status
from kdbench.spec.record import Data, Environment, ImageCounts, Record

INTRODUCTION = """\
`kdbench run` writes into the folder `results`, or the one that `--results` names. The folder can be moved. Every file is written
whole or not at all, so that a run can be stopped at any time."""

STATUSES = """\
A trial is stale when the code of its method or of a plugin that it uses has changed, or when its teacher was trained again with
other weights, or is stale itself. Comments, docstrings and layout are not code. The next run trains stale trials anew."""

FRAME = """\
`kdbench.load_results(path)` gives a pandas frame with one row for each trial, and `kdbench.run_suite` returns the same columns.
Units stand in the names: `_pct` is percent, `_s` seconds, `_per_s` a rate, `_mib` MiB. What a trial lacks is a missing value."""

RECORD = """\
`record.json` has the columns from `protocol` to `finished` as keys, and these besides, or in another form:"""

EXPORT = f"""\
`kdbench export` writes the frame into one Parquet or CSV file, one row for each trial. Its columns are those of the frame, in this
order and with these types. This is version {VERSION} of the schema. The version stands in the metadata of a Parquet file under
`{VERSION_COLUMN}`, and in a CSV file in the first column. It is raised if a column changes its meaning or type; a new column does
not raise it. What a trial lacks is null in Parquet, and an empty cell in CSV."""

MEASURED = """\
These keys differ from run to run. All others are the same, bit for bit, for the same spec, images, code and kind of machine:"""


def results_page() -> str:
    """The page as Markdown."""
    return page(
        "Results folder",
        INTRODUCTION,
        "## Files",
        _meanings("file", FILES),
        "## Statuses",
        STATUSES,
        _meanings("status", {Status[name].value: text for name, text in texts_under(Status).items()}),
        "`--rerun` says which trials a run takes up:",
        _meanings("value", {Rerun[name].value: text for name, text in texts_under(Rerun).items()}),
        "## Columns of the frame",
        FRAME,
        _meanings("column", COLUMNS),
        "## Exported files",
        EXPORT,
        _meanings("type", KINDS),
        table(["column", "type"], [[code(name), kind] for name, kind in {VERSION_COLUMN: "integer", **SCHEMA}.items()]),
        table(["further column", "type", "meaning"], [[code(name), kind, plain(text)] for name, (kind, text) in FURTHER.items()]),
        "## Keys of a record",
        RECORD,
        _meanings("key", {name: text for name, text in _keys(Record).items() if COLUMNS.get(name) != text}),
        f"{MEASURED} {', '.join(code(name) for name in Record.model_fields if name in Record.MEASURED)}.",
        *(f"### {title}\n\n{_meanings('key', _keys(model))}" for title, model in _PARTS.items()),
        "## Keys of a line of curves.jsonl",
        "A line lacks the keys that do not apply.",
        _meanings("key", CURVES),
    )


_PARTS: dict[str, type[BaseModel]] = {
    "data": Data,
    "train_images, validation_images and test_images in data": ImageCounts,
    "environment": Environment,
}


def _keys(model: type[BaseModel]) -> dict[str, str]:
    return {name: field.description or "" for name, field in model.model_fields.items()}


def _meanings(what: str, texts: Mapping[str, str]) -> str:
    return table([what, "meaning"], [[code(name), plain(text)] for name, text in texts.items()])
