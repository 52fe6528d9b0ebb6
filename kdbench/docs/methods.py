"""The page of all shipped methods."""

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.docs.markdown import page
from kdbench.method.description import describe_method
from kdbench.method.interface import METHODS
from kdbench.method.stages import Stage
from kdbench.suite.plugins import load_shipped
from kdbench.suite.shipped import shipped
from kdbench.wording import counted

INTRODUCTION = """\
`kdbench show method NAME` prints one of these, and `kdbench list methods` a line for each.

CE is the cross-entropy, y are labels, z logits, f the maps after a group of layers, B is the size of a batch; s and t mark the
student and the teacher. Golden numbers are what the reference code computes on fixed inputs, in float64: ours agrees with its loss
and all its gradients to 1e-9.
"""

GOLDEN = {
    "ab": "Heo et al., as in RepDistiller",
    "afd": "the code of Ji et al.",
    "at": "the code of Zagoruyko and Komodakis",
    "at_resize": "RepDistiller, for maps of unequal size",
    "catkd": "the code of Guo et al., normalised and not",
    "cc": "Peng et al., as in RepDistiller",
    "crd": "the code of Tian et al., two steps",
    "crld": "the authors' code as others have published it",
    "ctkd": "the code of Li et al., with lambda in epochs 1, 4 and 15; standardised, of Sun et al.",
    "dist": "the code of Huang et al., tau 4 and 1",
    "dkd": "the code of Zhao et al., after the warm-up",
    "dkd_standardized": "the code of Sun et al.",
    "eakd": "the code of Su et al., for CIFAR-100 and ImageNet",
    "fitnets_hint": "RepDistiller",
    "fsp": "Yim et al., as in RepDistiller",
    "ft": "the code of Kim et al.",
    "irg": "Liu et al., as in SemCKD, for vectors of two widths",
    "irg_equal": "as in SemCKD, for vectors of one width",
    "ickd": "the code of Liu et al.",
    "itrd": "the code of Miles et al.",
    "itrd_equal": "the code of Miles et al., for vectors of one width",
    "ft_repdistiller": "RepDistiller",
    "kd": "Hinton et al., as in RepDistiller",
    "kd_standardized": "the code of Sun et al.",
    "mlkd": "the code of Jin et al.",
    "mlkd_standardized": "the code of Sun et al.",
    "nkd": "the code of Yang et al., T 1 and 3",
    "mgd": "the code of Yang et al.",
    "mgd_equal": "the code of Yang et al., for one number of channels",
    "kdpp": "the code of Wang et al.",
    "normkd": "the code of Chi et al.",
    "nst": "Huang and Wang, as in RepDistiller",
    "ofa": "the code of Hao et al., for a CNN student, eps 1 and 1.5",
    "ofd": "Heo et al., as in mdistiller",
    "pefd": "the code of Chen et al.",
    "pkt": "Passalis and Tefas, as in RepDistiller",
    "reviewkd": "Chen et al., as in mdistiller",
    "rkd": "Park et al., as in RepDistiller",
    "rsd": "the code of Zhang et al.",
    "simkd": "the code of Chen et al.",
    "sdd": "the code of Wei et al., with KD, DKD and NKD",
    "semckd": "the code of Chen et al.",
    "rld": "the code of Sun et al., after the warm-up, tau 1 and 4",
    "skd": "the code of Jeong et al.",
    "sp": "Tung and Mori, as in RepDistiller, which the authors verified",
    "tfkd_reg": "the code of Yuan et al.",
    "ttm": "the code of Zheng and Yang",
    "ttm_weighted": "their code of WTTM",
    "sskd": "the code of Xu et al.",
    "srrl": "the code of Yang et al.",
    "srrl_pooled": "SimKD's code, for pooled vectors",
    "wkd_f": "the code of Lv et al., grids 1 and 2, before the decay",
    "wkd_l": "the code of Lv et al., with the classifier's cost, before the decay",
    "vid": "Ahn et al., as in RepDistiller",
    "wsld": "the code of Zhou et al., T 2 and 4",
}
"""By name of the file in `tests/golden/`: the code that computed it. A suffix, as in `at_resize`, marks a case of a method."""


def shipped_methods() -> list[str]:
    """The names of the methods that ship with kdbench, in alphabetical order."""
    load_shipped()
    return [name for name in METHODS.names() if Path(METHODS.entry(name).file).parent == shipped("methods")]


def methods_page() -> str:
    """The page as Markdown."""
    names = shipped_methods()
    return page("Methods", "\n".join([INTRODUCTION, *overview(names), "", *(section(name) for name in names)]).rstrip("\n"))


def overview(names: Iterable[str]) -> Iterator[str]:
    """A table of what each method transfers, by family."""
    yield from ("| Family | Method | Transfers | Published |", "| --- | --- | --- | --- |")
    for method in sorted(map(describe_method, names), key=lambda method: str(method["family"])):
        name = method["name"]
        yield f"| {method['family']} | [{name}](#{name}) | {method['transfers']} | {method['published']} |"


def section(name: str) -> str:
    """What there is to know of one method."""
    described = describe_method(name)
    params = ", ".join(f"`{key}` {_as_text(value)}" for key, value in described["params"].items())
    points = {
        "Transfers": described["transfers"] + (f" ({described['family']})" if described["family"] else ""),
        "Paper": described["paper"],
        "Code": described["code"],
        "Deviations": described["deviations"],
        "Reads": ", ".join(described["reads"]) or "no teacher",
        "Needs": ", ".join(described["needs"]),
        "Stages before the main training": "; ".join(stages(name)) or "none",
        "Parameters and defaults": params or "none",
        "Golden numbers": "; ".join(golden(name)) or "none",
    }
    lines = [f"## {name}", "```", described["formula"], "```"]
    lines += [line for paragraph in described["text"] for line in (*paragraph.splitlines(), "")]
    for label, text in points.items():
        if text:
            lines += textwrap.wrap(
                f"* {label}: {text}", 130, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
    return "\n".join([*lines, ""])


def stages(name: str) -> Iterator[str]:
    """The stages at the default parameters."""
    for _, stage in MethodUnderTest(name).default_setting.method().stages():
        yield f"{stage.name}, {counted(stage.epochs, 'epoch')}, {_learner(stage)}"


def _as_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _learner(stage: Stage) -> str:
    learner = "of the student" if stage.trains_student else "from the teacher alone"
    rate = f", learning rate {stage.optimiser.lr:g}" if stage.optimiser else ""
    return f"{learner}{rate}" + (f", a tenth of it from epoch {', '.join(map(str, stage.milestones))}" if stage.milestones else "")


def golden(name: str) -> Iterator[str]:
    """The golden files of a method, each with its source."""
    for file, source in GOLDEN.items():
        if file == name or (file.startswith(f"{name}_") and file not in METHODS):
            yield f"`{file}` ({source})"
