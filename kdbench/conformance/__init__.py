"""`kdbench check`: what the harness promises its users of a method, tried on two small networks in seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kdbench.conformance import bitwise, declarations, devices, further, gradients, loss_values, once, pairs
from kdbench.conformance.method_under_test import MethodUnderTest, PairRefused
from kdbench.conformance.setting import CPU, BrokenPromise
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.paths import expanded
from kdbench.suite.plugins import load_path, load_shipped
from kdbench.training.device import exact

CHECKS: tuple[Callable[[MethodUnderTest], str | None], ...] = (
    declarations.docstring,
    declarations.file,
    declarations.names,
    declarations.parameters,
    loss_values.scalars,
    declarations.effects,
    declarations.weights,
    declarations.reads,
    further.views,
    further.several_teachers,
    once.stages_of_the_teacher,
    once.surveys,
    gradients.registered,
    devices.device,
    devices.deterministic,
    gradients.gradients,
    gradients.reaches_student,
    pairs.equal,
    pairs.deeper_teacher,
    pairs.deeper_student,
    pairs.odd_sizes,
    loss_values.batch_sizes,
    loss_values.mixed_images,
    loss_values.bf16,
    gradients.extremes,
    pairs.refusals,
    loss_values.permutation,
    bitwise.untouched,
    bitwise.repeatable,
    bitwise.resumable,
    bitwise.alone_or_beside,
)


@dataclass(frozen=True)
class Check:
    """What came of one check.

    Attributes:
        name: of the check.
        promise: one sentence, what holds where the check passes.
        status: `refused` where the method says in advance that it does not do such a pair, which is its right; `untried` where
            its losses cannot be computed at all.
        reason: why it failed and what to do, or was refused; a remark, if any, where it passed.
    """

    name: str
    promise: str
    status: Literal["pass", "fail", "refused", "untried"]
    reason: str = ""


def check(name: str) -> list[Check]:
    """Put a method through every check.

    Args:
        name: of a registered method, or the path of a file that registers one.

    Raises:
        KdbenchError: nothing of that name, or a file that does not register exactly one method.
    """
    names = registered(name)
    if len(names) > 1:
        raise KdbenchError(f"{name} registers {', '.join(names)}, not one method. Check by name, such as {names[0]}.")
    tested = MethodUnderTest(names[0])
    found: list[Check] = []
    without_losses = False
    for test in CHECKS:
        found.append(Check(*_named(test), "untried") if without_losses else run_check(test, tested))
        without_losses = without_losses or (test is loss_values.scalars and found[-1].status == "fail")
    return found


def described(test: Callable[[MethodUnderTest], str | None]) -> dict[str, str]:
    """The `name` of a check, its `promise`, `why` it matters and how to `fix` a method that fails, as the check says itself."""
    promise, why, fix = (" ".join(part.split()) for part in (test.__doc__ or "").split("\n\n"))
    return {
        "name": test.__name__.replace("_", " "),
        "promise": promise,
        "why": why.removeprefix("Why: "),
        "fix": fix.removeprefix("Fix: "),
    }


def _named(test: Callable[[MethodUnderTest], str | None]) -> tuple[str, str]:
    """The name of a check and its promise."""
    about = described(test)
    return about["name"], about["promise"]


def run_check(test: Callable[[MethodUnderTest], str | None], tested: MethodUnderTest) -> Check:
    """Put a method through one check; whatever the method raises is its failure."""
    name, promise = _named(test)
    try:
        with exact(CPU, precision="fp32", image_shape=(3, 8, 8)):
            remark = test(tested)
    except PairRefused as reason:
        return Check(name, promise, "refused", str(reason))
    except BrokenPromise as reason:
        return Check(name, promise, "fail", str(reason))
    except Exception as problem:  # whatever a method raises
        return Check(name, promise, "fail", f"{tested.exception_text(problem)}.")
    return Check(name, promise, "pass", remark or "")


def registered(name: str) -> list[str]:
    """The method of a name, or those that a file registers, which is loaded where that was not done before.

    Raises:
        KdbenchError: nothing of that name, or a file that registers no method.
    """
    load_shipped()
    file = expanded(name)
    if file.suffix != ".py":
        if name not in METHODS.names() and (written := file.with_suffix(".py")).is_file():
            raise KdbenchError(f"no method is registered as '{name}'. To check the file that is here: kdbench check {written}")
        return [METHODS.entry(name).name]
    found = _of_file(file)
    if not found:
        load_path(file)
        found = _of_file(file)
    if not found:
        raise KdbenchError(f'{file} registers no method. Write @kdbench.register("my_method") over its class.')
    return found


def _of_file(file: Path) -> list[str]:
    return [name for name in METHODS.names() if Path(METHODS.entry(name).file).resolve() == file.resolve()]


def as_json(checks: Sequence[Check]) -> list[dict[str, str]]:
    """The checks as values for JSON, with the attributes of `Check` as keys."""
    return [asdict(check) for check in checks]


def as_text(checks: Sequence[Check]) -> str:
    """A line for each check that was tried, and how many came out how; what several fail by is told once."""
    first: dict[str, str] = {}
    for check in checks:
        if check.status == "fail":
            first.setdefault(_cause(check), check.name)
    width = max(len(check.name) for check in checks)
    lines = [f"{check.status:<7}  {check.name:<{width}}  {_as_text(check, first)}" for check in checks if check.status != "untried"]
    nouns = {
        "fail": "failed",
        "refused": "refused",
        "pass": "passed",
        "untried": "not tried, since the losses could not be computed",
    }
    counts = {status: sum(check.status == status for check in checks) for status in nouns}
    return "\n".join([*lines, ", ".join(f"{n} {nouns[status]}" for status, n in counts.items() if n)])


def _cause(check: Check) -> str:
    """What a failure says, without shapes and advice."""
    return re.sub(r"\([\d, ]+\)", "()", check.reason.partition(". ")[0].removesuffix("."))


def _as_text(check: Check, first: Mapping[str, str]) -> str:
    """`first` has by cause the check that failed by it first."""
    if check.status == "fail" and (told := first[_cause(check)]) != check.name:
        return f"The same as '{told}'."
    if check.status == "pass":
        return f"{check.promise[:-1]}: {check.reason}." if check.reason else check.promise
    return check.reason[0].upper() + check.reason[1:]
