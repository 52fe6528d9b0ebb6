"""Every shipped method keeps every promise, and every check finds the method that breaks its promise, and no other."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import pytest

from kdbench import KdbenchError, conformance
from kdbench.conformance import CHECKS, Check, as_text, judge
from kdbench.conformance.subject import Subject
from kdbench.method import METHODS
from kdbench.plugins import load_shipped, shipped
from kdbench.scaffold import new_method

load_shipped()
SHIPPED = [name for name in METHODS.names() if Path(METHODS.entry(name).file).parent == shipped("methods")]

subject = cache(Subject)
result = cache(judge)


@pytest.mark.parametrize("test", CHECKS, ids=lambda test: test.__name__)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_method_passes_every_check(name: str, test: Callable[[Subject], str | None]) -> None:
    found = result(test, subject(name))
    assert found.status != "fail", found.reason


def test_pairs_are_refused_where_and_only_where_a_method_cannot_do_them() -> None:
    refused = {(name, test.__name__) for name in SHIPPED for test in CHECKS if result(test, subject(name)).status == "refused"}
    assert refused == {
        ("ab", "deeper_student"),  # no regressor to maps four times as large
        ("fitnets", "deeper_student"),
        ("fitnets_hint", "deeper_student"),
        ("fsp", "deeper_student"),  # unequal channels
        ("fsp", "deeper_teacher"),
    }


def test_what_a_promise_does_not_say_of_a_method_stands_beside_it() -> None:
    remarks = {(name, test.__name__): result(test, subject(name)).reason for name in SHIPPED for test in CHECKS}
    assert remarks["crd", "permutation"] == "it draws at random, and the means of 48 draws agree"
    assert remarks["cc", "permutation"] == "an index of its formula runs over the batch, as the docstring says"
    assert remarks["sp", "permutation"] == ""
    assert remarks["scratch", "reaches_student"] == "it transfers nothing"


@dataclass(frozen=True)
class Fault:
    """An edit of the method that `kdbench new method` writes, after which the check `check` fails with `reason`.

    `also` names the checks that cannot but fail with it.
    """

    check: str
    reason: str
    edits: dict[str, str] = field(default_factory=dict)
    build: str = ""
    loss: str = ""
    body: str = ""
    reads: tuple[str, ...] = ("pooled",)
    also: tuple[str, ...] = ()

    def applied(self, text: str) -> str:
        """The broken method's source."""
        replaced = {
            **self.edits,
            '    reads = ("pooled",)': f"    reads = {self.reads!r}",
            "        self.embed =": f"        {self.build}\n        self.embed =",
            '        return {"regression": self.params.beta * F.mse_loss(self.embed(student.pooled), teacher.pooled)}': (
                f"        extra = {self.loss or '0'}\n"
                "        embedded = self.embed(student.pooled)\n"
                '        return {"regression": self.params.beta * (F.mse_loss(embedded, teacher.pooled) + extra)}\n'
                f"{self.body}"
            ),
        }
        for old, new in replaced.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return "import random\nimport torch\nfrom kdbench import PairError, Stage\n" + text


LOSS = "F.mse_loss(embedded, teacher.pooled) + extra"
STAGE = """
    def stages(self):
        return (Stage("mirror", 2, self.mirror, (self.mirrored,), trains_student=False, depends_on={depends_on}),)

    def mirror(self, student, teacher, batch):
        return {{"mirror": self.params.beta * F.mse_loss(self.mirrored({of}.pooled), {of}.pooled)}}
"""

FAULTS = {
    "no paper": Fault("docstring", "no paragraph `Paper:`", edits={"    Paper:": "    By:"}),
    "no formula": Fault("docstring", "open with a formula", edits={"CE(z_s, y) + beta mean((W p_s - p_t)^2)": "Regression."}),
    "a long file": Fault("file", "the file has 1[45]. lines", edits={'@register("mine")': "#\n" * 100 + '@register("mine")'}),
    "unknown parameters taken": Fault(
        "parameters",
        "an unknown parameter is taken",
        edits={"        beta: Non": '        model_config = {"extra": "ignore"}\n        beta: Non'},
    ),
    "a parameter without effect": Fault(
        "effects", "`gamma` has no effect", edits={"        beta: Non": "        gamma: float = 2.0\n        beta: Non"}
    ),
    "a choice without effect": Fault(
        "effects", r"`norm` has no effect: \[False\]", edits={"        beta: Non": "        norm: bool = True\n        beta: Non"}
    ),
    "a weight that is read and never used": Fault(
        "weights",
        "`beta` is declared as a weight and changes no term",
        build="self.used = self.params.beta",
        edits={},
        also=("effects",),
    ),
    "a weight that is no parameter": Fault("weights", r"\['gamma'\]", edits={'weights = ("beta",)': 'weights = ("gamma",)'}),
    "more is declared than read": Fault("reads", r"it reads \['pooled'\]", reads=("pooled", "logits")),
    "more is read than declared": Fault("reads", r"it reads \['logits', 'pooled'\]", loss="student.logits.square().mean()"),
    "a stage of the teacher alone that hides what it depends on": Fault(
        "depends_on",
        "`beta` changes what stage mirror learns",
        build="self.mirrored = nn.Linear(*2 * pair.teacher.pooled)",
        body=STAGE.format(depends_on=(), of="teacher"),
    ),
    "a stage of the teacher alone with shapes of the student": Fault(
        "depends_on",
        "have shapes of the student's",
        build="self.mirrored = nn.Linear(pair.teacher.pooled[0], pair.student.pooled[0])",
        body=STAGE.format(depends_on=("beta",), of="teacher").replace("(teacher.pooled), teacher.pooled", "(teacher.pooled), 0 * t"),
    ),
    "a tensor that no optimiser has": Fault(
        "gradients",
        r"a tensor of shape \(64, 2\) learns in main, and no optimiser has it",
        build="self.scales = [torch.ones(64, 2, requires_grad=True)]",
        loss="(student.pooled @ self.scales[0]).square().mean()",
    ),
    "an adapter that is never used": Fault(
        "gradients", "no gradient reaches spare.weight, spare.bias", build="self.spare = nn.Linear(2, 2)"
    ),
    "a student that is detached": Fault(
        "reaches_student", "no term has a gradient", edits={"self.embed(student.pooled), t": "self.embed(student.pooled.detach()), t"}
    ),
    "a quotient that fails for equal widths": Fault(
        "equal", "ZeroDivisionError.*mine.py:", build="self.scale = 1 / (pair.teacher.pooled[0] - pair.student.pooled[0])"
    ),
    "as many of the student's groups as the teacher has": Fault(
        "deeper_teacher",
        r"IndexError.*PairError",
        reads=("features", "pooled"),
        loss="student.features[len(teacher.features) - 1].square().mean()",
        also=("refusals",),
    ),
    "as many of the teacher's groups as the student has": Fault(
        "deeper_student",
        r"IndexError.*PairError",
        reads=("features", "pooled"),
        loss="teacher.features[len(student.features) - 1].square().mean()",
        also=("refusals",),
    ),
    "halves of maps": Fault(
        "odd_sizes",
        r"RuntimeError.*mine.py:",
        reads=("features", "pooled"),
        loss="student.features[0].unflatten(3, (-1, 2)).square().mean()",
        also=("refusals",),
    ),
    "halves of batches": Fault("batch_sizes", "RuntimeError", loss="student.pooled.unflatten(0, (2, -1)).square().mean()"),
    "differences of large numbers": Fault(
        "bf16",
        "mine.regression is .* in bfloat16 and .*full_precision",
        loss="((self.embed(student.pooled) + 300) - (teacher.pooled + 300)).square().mean()",
    ),
    "a root without a floor": Fault(
        "extremes", "not finite where all samples are alike", loss="self.embed(student.pooled).var(0).sqrt().mean()"
    ),
    "an exception for want of pre-activations": Fault(
        "refusals",
        "a teacher without pre-activations: IndexError.*PairError",
        reads=("preactivations", "pooled"),
        loss="student.preactivations[-1].mean().square() + teacher.preactivations[-1].mean()",
    ),
    "a refusal in the middle of training": Fault(
        "refusals",
        "a teacher without pre-activations is refused in a loss",
        body="        if not teacher.preactivations:\n            raise PairError('this needs a teacher that has pre-activations')\n",
    ),
    "a refusal without a reason": Fault(
        "refusals", "is refused with 'no'", build="if not pair.teacher.preactivations:\n            raise PairError('no')"
    ),
    "half of the batch": Fault(
        "permutation", "changes with the order of the batch", loss="student.pooled[: len(student.pooled) // 2].square().mean()"
    ),
    "the teacher's outputs in place": Fault(
        "untouched", "it changes the teacher's outputs", loss="0 * teacher.pooled.clamp_(max=0.5).sum()"
    ),
    "the images in place": Fault(
        "untouched", "it changes the batch", loss="0 * batch.images.clamp_(max=0.5).sum()", also=("alone_or_beside",)
    ),
    "a seed of its own": Fault(
        "repeatable",
        "two trainings of one seed differ",
        build="self.scale = random.random()",
        loss="self.scale * student.pooled.square().mean()",
        also=("resumable", "alone_or_beside"),
    ),
    "a running mean that is no buffer": Fault(
        "resumable",
        "ends elsewhere. Keep in buffers",
        build="self.mean = torch.zeros(pair.teacher.pooled)",
        loss="(embedded - self.moved(teacher)).square().mean()",
        body="""
    def moved(self, teacher):
        self.mean = 0.9 * self.mean + 0.1 * teacher.pooled.mean(0)
        return self.mean
""",
    ),
    "an adapter in the class": Fault(
        "alone_or_beside",
        "beside another instance of itself",
        edits={"self.embed = nn": "type(self).shared = self.embed = nn", "self.embed(student.pooled), t": "self.shared(student.pooled), t"},
    ),
}


@pytest.fixture
def registry() -> Iterator[None]:
    """Forgets what a test registers."""
    forget = METHODS.snapshot()
    yield
    forget()


def healthy(folder: Path) -> tuple[Path, str]:
    file, _ = new_method("mine", folder)
    return file, file.read_text()
