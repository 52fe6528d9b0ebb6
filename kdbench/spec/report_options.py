"""How a report looks and what it compares with: the key `report` of a suite, and the options of `kdbench report`."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kdbench.errors import nearest
from kdbench.spec.figure_options import FigureOptions
from kdbench.spec.metrics import METRICS, Metric
from kdbench.spec.recipe import Spec

FurtherTable = Literal[
    "pairwise", "win_tie_loss", "performance_profile", "shared_errors", "beside_teacher", "class_errors", "confusions"
]


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'.{nearest(name, METRICS)} Choose one of {', '.join(METRICS)}")
    return name


class ReportOptions(Spec):
    """What a report shows. It is no part of a trial: another report of the same trials needs no training.

    Methods, networks and data sets have the names that suites give them. A pair is `TEACHER -> STUDENT`.
    """

    metric: Annotated[str, AfterValidator(_known_metric)] = "error"
    """What is compared: `error`, `accuracy`, `top5_error`, `top5_accuracy`, `nll`, `ece`, `adaptive_ece`, `agreement` or `kl`."""
    baseline: str = "scratch"
    """The method that gains and training times are given over, such as `kd`."""
    tables: tuple[FurtherTable, ...] = ()
    """Further tables to show, which are otherwise in CSV files alone: `pairwise`, all pairs of methods; `win_tie_loss` and
    `performance_profile`, over several pairs of networks; `shared_errors`, which test images methods get wrong together;
    `beside_teacher`, how students err where the teacher is right; `class_errors`, the error of each class; and `confusions`, which
    classes are taken for which."""
    datasets: tuple[str, ...] = ()
    """The data sets to show; all unless given."""
    recipes: tuple[str, ...] = ()
    """The recipes to show, by any part of what the report calls them, such as `d9e1`; all unless given."""
    pairs: tuple[str, ...] = ()
    """The pairs to show, in this order, such as `resnet56 -> resnet20`; all unless given."""
    methods: tuple[str, ...] = ()
    """The methods to show, in this order; all unless given."""
    names: dict[str, str] = {}
    """What the report calls methods, networks and data sets, such as `{kd: Hinton KD}`. `teacher` names the row or
    column of the teacher's own number. Of a network the name is enough, without what follows in brackets, unless several have it:
    `my_net` for `my_net (weights 1a2b3c4d)`."""
    groups: dict[str, tuple[str, ...]] = {}
    """Headings over rows or columns, each with its pairs or its methods, such as `{logit-based: [kd, dkd]}`. What is in no group
    comes first."""
    decimals: int | None = Field(None, ge=0, le=6)
    """Decimals of the metric and of gains. Unless given, 4 where the unit is nats (`nll`, `kl`), and 2 elsewhere. Means that are
    equal in these decimals share the best place."""
    spread: Literal["std", "interval", "none"] = "std"
    """What follows a mean in the table of the metric: `std`, the standard deviation over seeds; `interval`, the 95 % interval; or
    `none`."""
    rows: Literal["fit", "pairs", "methods"] = "fit"
    """What the rows of the table of the metric are; `fit` takes pairs, or methods where the table would be too wide."""
    mean: bool = False
    """Whether the table of the metric has a mean over all pairs."""
    sizes: bool = True
    """Whether the table of the metric has the parameters and multiply-accumulates of the networks."""
    second_best: bool = False
    """Whether the second best mean is underlined."""
    significance: bool = False
    """Whether means that differ from the baseline beyond chance are marked."""
    highlight: tuple[str, ...] = ()
    """Methods whose names are bold in LaTeX, such as your own."""
    cite: bool = False
    """Whether names of methods in LaTeX are followed by a citation of their papers, `\\cite{ft}`, by the keys of methods.bib."""
    caption: str = ""
    """The caption of the table of the metric, in place of the usual one."""
    latex: Literal["table", "table*", "tabular"] = "table"
    """What LaTeX files hold: `table`, with caption, label and notes; `table*`, the same over both columns of a page; or `tabular`
    alone, with the notes as comments."""
    label: str = ""
    """What labels in LaTeX begin with; the name of the report's folder unless given: `tab:NAME-test-error`."""
    figures: FigureOptions = FigureOptions()
    """Which figures there are, and how they look."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if self.label and self.latex == "tabular":
            raise ValueError("a tabular alone has no label. Leave out `label`, or choose `latex: table`")
        return self

    @property
    def compared(self) -> Metric:
        """The metric, with the decimals that are asked for."""
        metric = METRICS[self.metric]
        return metric if self.decimals is None else replace(metric, decimals=self.decimals)

    @property
    def given(self) -> dict[str, Any]:
        """The keys that were given, with their values."""
        return self.model_dump(exclude_unset=True)


DEFAULT = ReportOptions()
"""What a report shows unless it is told."""
