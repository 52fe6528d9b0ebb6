"""Every shipped method keeps every promise, and every check finds the method that breaks its promise, and no other."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import torch

from kdbench import KdbenchError, conformance
from kdbench.conformance import (
    CHECKS,
    Check,
    as_json,
    as_text,
    declarations,
    devices,
    gradients,
    loss_values,
    registered,
    run_check,
)
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.scaffold import new_method
from kdbench.docs.methods import shipped_methods
from kdbench.method.interface import METHODS

SHIPPED = shipped_methods()

subject = cache(MethodUnderTest)
result = cache(run_check)


@pytest.mark.parametrize("test", CHECKS, ids=lambda test: test.__name__)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_method_passes_every_check(name: str, test: Callable[[MethodUnderTest], str | None]) -> None:
    found = result(test, subject(name))
    assert found.status != "fail", found.reason


def test_pairs_are_refused_where_and_only_where_a_method_cannot_do_them() -> None:
    refused = {(name, test.__name__) for name in SHIPPED for test in CHECKS if result(test, subject(name)).status == "refused"}
    assert refused == {
        ("ab", "deeper_student"),  # no regressor to maps four times as large
        ("catkd", "deeper_student"),  # maps of one pixel
        ("catkd", "deeper_teacher"),
        ("fitnets", "deeper_student"),
        ("fsp", "deeper_student"),  # unequal channels
        *(("deit", pair) for pair in ("equal", "deeper_teacher", "deeper_student")),  # no ordinary student has two heads
        ("fsp", "deeper_teacher"),
        ("ft_repdistiller", "deeper_student"),  # maps of one pixel
        ("ft_repdistiller", "deeper_teacher"),
        ("sskd", "odd_sizes"),  # it turns images by 90 degrees
        ("wkd_f", "deeper_student"),  # maps of one pixel
        ("wkd_f", "deeper_teacher"),
    }


def test_what_a_promise_does_not_say_of_a_method_stands_beside_it() -> None:
    remarks = {(name, test.__name__): result(test, subject(name)).reason for name in SHIPPED for test in CHECKS}
    assert remarks["crd", "permutation"] == "it draws at random, and the means of 48 draws agree"
    assert remarks["cc", "permutation"] == "an index of its formula runs over the batch, as the docstring says"
    assert remarks["sp", "permutation"] == ""
    assert remarks["scratch", "reaches_student"] == "it transfers nothing"


LOSS = """\
        embedded = self.embed(student.pooled)
        extra = EXTRA
        return {"regression": self.params.beta * (F.mse_loss(embedded, teacher.pooled) + extra)}
MEMBERS"""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a method, and what is found.

    Attributes:
        check: that fails.
        reason: a pattern in what it says.
        also: the checks that cannot but fail with it.
        params: a line that stands before the others in `Params`.
        build: a line that stands before the others in `build`.
        extra: a term that is added to the loss.
        members: lines that stand at the end of the class.
        reads: what is declarations.
        edits: text that is replaced in the end.
    """

    check: str
    reason: str
    also: tuple[str, ...] = ()
    params: str = ""
    build: str = "pass"
    extra: str = "0"
    members: str = ""
    reads: tuple[str, ...] = ("pooled",)
    edits: Mapping[str, str] = field(default_factory=dict)

    def put_into(self, text: str) -> str:
        """The method that `kdbench new method` writes, with this fault."""
        head, _ = text.split("        return {")
        text = f"import random\nimport torch\nfrom kdbench import PairError, Stage\n{head}{LOSS}"
        for old, new in {
            "        beta:": f"        {self.params}\n        beta:",
            "        self.embed =": f"        {self.build}\n        self.embed =",
            "EXTRA": self.extra,
            "MEMBERS": self.members,
            '("pooled",)': repr(self.reads),
            **self.edits,
        }.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text


LESSON = """
    teacher_stages = {"lesson": DEPENDS_ON}

    def stages(self):
        return (Stage("lesson", 2, self.lesson, (self.mirror,), trains_student=False),)

    def lesson(self, student, teacher, batch):
        return {"lesson": self.params.beta * self.mirror(teacher.pooled).square().mean()}
"""
OWN_RATE = """
    def parameter_groups(self):
        from kdbench import ParameterGroup
        return (ParameterGroup(self.embed, lr_factor=self.params.rate),)
"""
DRILL = """
    def drills(self):
        return (Stage("drill", 2, self.drill, (self.echo,), trains_student=False),)

    def drill(self, student, teacher, batch):
        return {"drill": self.echo(self.mirror(teacher.pooled)).square().mean()}
"""
MEMORY = """
    def moved(self, teacher):
        self.mean = 0.9 * self.mean + 0.1 * teacher.pooled.mean(0)
        return self.mean
"""
COUNTED = """
    def counted(self):
        self.steps += 1
        self.ce_weight = 1 / self.steps
        return 0
"""
ANNEALED = """
    def annealed(self, batch):
        self.ce_weight = 1 - self.params.share * batch.epoch / batch.epochs
        return 0
"""

SURVEY = """
    teacher_surveys = DEPENDS_ON

    def surveys(self):
        return (Survey("means", self.means, self.look),)

    def look(self, teacher, labels):
        self.means.mean += teacher.pooled.float().mean(0)
"""


def survey(check: str, reason: str, edits: Mapping[str, str], *, build: str = "pass", also: tuple[str, ...] = ()) -> Fault:
    """A fault of a method that surveys the teacher: text that is replaced in one that is sound."""
    text = SURVEY if "DEPENDS_ON" in edits else SURVEY.replace("DEPENDS_ON", "{'means': ()}")
    means = "self.means = nn.Module(); self.means.register_buffer('mean', torch.zeros(pair.teacher.pooled))"
    found = {"members": text, "build": f"{means}; {build}", "extra": "(embedded - self.means.mean).square().mean()"}
    for old, new in edits.items():
        assert any(old in part for part in found.values()), old
        found = {name: part.replace(old, new) for name, part in found.items()}
    return Fault(check, reason, also=also, edits={"import PairError, Stage": "import PairError, Stage, Survey"}, **found)


HARM = """\
def harm():
    METHODS.get("kd").losses = lambda self, student, teacher, batch: {"nothing": 0 * student.logits.sum()}
    return 0
"""

TRAINED = ("repeatable", "resumable", "alone_or_beside")
"""What cannot be seen of a method that the engine stops."""

FAULTS = {
    "no paper": Fault("docstring", "no paragraph `Paper:`", edits={"    Paper:": "    By:"}),
    "no formula": Fault("docstring", "open with a formula", edits={"CE(z_s, y) + beta mean((W p_s - p_t)^2)": "Regression."}),
    "settings of an optimiser that nothing reads": Fault(
        "names", "nothing uses `optimiser`, neither kdbench nor this file", members="    optimiser = 'adam'\n"
    ),
    "unknown parameters are taken": Fault(
        "parameters", "an unknown parameter is accepted", params='model_config = {"extra": "ignore"}'
    ),
    "a parameter without effect": Fault("effects", "`gamma` has no effect", params="gamma: float = 2.0"),
    "a list without effect": Fault(
        "effects", r"`layers` has no effect: \[\(2, 1\), \(2, 4\)\]", params="layers: tuple[int, ...] = (1, 2)"
    ),
    "a choice without effect": Fault("effects", r"`norm` has no effect: \[False\]", params="norm: bool = True"),
    "a weight that is never used": Fault(
        "weights",
        "`beta` is declared as a weight and changes no term",
        also=("effects",),
        edits={"self.params.beta * (": "1.0 * ("},
    ),
    "a weight that is no parameter": Fault("weights", r"\['gamma'\]", edits={'weights = ("beta",)': 'weights = ("gamma",)'}),
    "more is declared than read": Fault("reads", r"it reads \['pooled'\]", reads=("pooled", "logits")),
    "a teacher that is not needed": Fault(
        "reads",
        r"it reads \[\] and declares \['pooled'\]",
        edits={"F.mse_loss(embedded, teacher.pooled)": "embedded.square().mean()"},
    ),
    "more is read than declared": Fault("reads", r"it reads \['logits', 'pooled'\]", extra="student.logits.square().mean()"),
    "a stage of the teacher alone hides what it depends on": Fault(
        "stages_of_the_teacher",
        "`beta` changes what stage lesson learns",
        build="self.mirror = nn.Linear(pair.teacher.pooled[0], 3)",
        members=LESSON.replace("DEPENDS_ON", "()"),
    ),
    "a stage of the teacher alone has shapes of the student's": Fault(
        "stages_of_the_teacher",
        "have shapes that depend on the student",
        build="self.mirror = nn.Linear(pair.teacher.pooled[0], pair.student.pooled[0])",
        members=LESSON.replace("DEPENDS_ON", "('beta',)"),
    ),
    "a stage of the teacher alone that builds on another": Fault(
        "stages_of_the_teacher",
        "stage drill computes with what stage lesson learns. .*Make them one stage",
        build="self.mirror, self.echo = nn.Linear(pair.teacher.pooled[0], 3), nn.Linear(3, 3)",
        members=LESSON.replace("DEPENDS_ON", "('beta',), 'drill': ()").replace(
            ",)\n\n    def lesson", ", *self.drills())\n\n    def lesson"
        )
        + DRILL,
    ),
    "a stage of the teacher alone that fills a buffer elsewhere": Fault(
        "stages_of_the_teacher",
        "stage lesson changes seen, which is in none of its modules",
        build="self.mirror = nn.Linear(pair.teacher.pooled[0], 3); self.register_buffer('seen', torch.zeros(()))",
        members=LESSON.replace("DEPENDS_ON", "('beta',)").replace("        return {", "        self.seen += 1\n        return {"),
    ),
    "a view that is not asked for": Fault(
        "scalars",
        r"RuntimeError: it uses the view 'strong', and its class does not ask for it. Write views = \('strong',\)",
        extra="student.views['strong'].pooled.square().mean()",
    ),
    "another view than the one that is asked for": Fault(
        "scalars",
        r"it uses the view 'mixup', and its class does not ask for it. Write views = \('strong', 'mixup'\)",
        extra="student.views['strong'].pooled.mean() + batch.views['mixup'].images.mean()",
        members="    views = ('strong',)\n",
    ),
    "a view that is not used": Fault(
        "views",
        "it asks for the view 'mixup' and does not use it",
        extra="student.views['strong'].pooled.square().mean()",
        members="    views = ('strong', 'mixup')\n",
    ),
    "a second teacher from whom nothing is learnt": Fault(
        "several_teachers",
        "reads the first alone. Use `teacher.others`",
        extra="0 * len(teacher.others)",
        members="    several_teachers = True\n",
    ),
    "a survey that its class does not declare": survey(
        "scalars", r"does not declare the survey means. Write teacher_surveys = \{'means': \(...\)\}", {"DEPENDS_ON": "{}"}
    ),
    "a survey that is declared and not returned": survey(
        "surveys",
        "`teacher_surveys` names spread, and `surveys` returns 0 of that name",
        {"DEPENDS_ON": "{'means': (), 'spread': ()}"},
    ),
    "a survey that hides what it depends on": survey(
        "surveys",
        "`beta` changes what survey means finds. Name it in `teacher_surveys`",
        {"teacher.pooled.float()": "self.params.beta * teacher.pooled.float()"},
    ),
    "a survey whose buffers are of the student's size": survey(
        "surveys",
        "the buffers of survey means have shapes that depend on the student",
        {"torch.zeros(pair": "torch.zeros(pair.student.pooled[0], *pair", "- self.means.mean)": "- self.means.mean.mean(0))"},
    ),
    "a survey that keeps what it finds elsewhere": survey(
        "surveys",
        "its losses are others when what the survey found is read from the disk",
        {"self.means.mean += ": "self.found = self.found + ", "- self.means.mean)": "- self.found)"},
        build="self.found = torch.zeros(pair.teacher.pooled)",
        also=("device",),
    ),
    "a survey that fails": survey(
        "scalars", "a survey fails: RuntimeError: .*mine.py", {"teacher.pooled.float()": "teacher.pooled.view(7, -1).float()"}
    ),
    "another method is changed": Fault(
        "alone_or_beside",
        "kd learns something else when it trains beside it",
        extra="harm()",
        edits={"import random": "import random\n\nfrom kdbench.method.interface import METHODS\n\n\n" + HARM},
    ),
    "a loss for each sample": Fault(
        "scalars",
        r"the term 'regression' is of shape \(\d+,\). Return the mean or the sum",
        extra="student.pooled.square().mean(1)",
    ),
    "a network in a list": Fault(
        "registered",
        "it computes with a Linear of 2 tensors that is not a submodule",
        also=("device", "permutation"),  # nor does it follow the method to a GPU, nor to float64
        build="self.second = [nn.Linear(pair.student.pooled[0], 3).requires_grad_(False)]",
        extra="self.second[0](student.pooled).square().mean()",
    ),
    "no optimiser has a tensor that learns": Fault(
        "gradients",
        r"a tensor of shape \(64, 2\) learns in main, and no optimiser has it",
        build="self.scales = [torch.ones(64, 2, requires_grad=True)]",
        extra="student.pooled.square().mean() * self.scales[0].square().mean()",
    ),
    "a rate for a module that is not the method's": Fault(
        "gradients",
        "`parameter_groups` has 2 parameters that are not the method's",
        members=OWN_RATE.replace("self.embed", "torch.nn.Linear(3, 3)").replace("self.params.rate", "0.1"),
    ),
    "a stage without its comma": Fault(
        "scalars",
        r"TypeError: it returned a Stage where a tuple of them belongs. Write a comma behind it: return \(Stage\(...\),\)",
        build="self.mirror = nn.Linear(pair.teacher.pooled[0], 3)",
        members=LESSON.replace("DEPENDS_ON", "('beta',)").replace("trains_student=False),)", "trains_student=False))"),
    ),
    "an adapter is never used": Fault(
        "gradients", "no gradient reaches spare.weight, spare.bias", build="self.spare = nn.Linear(2, 2)"
    ),
    "the student is detached": Fault(
        "reaches_student", "no term has a gradient", edits={"self.embed(student.pooled)": "self.embed(student.pooled.detach())"}
    ),
    "a quotient by the difference of widths": Fault(
        "equal",
        r"ZeroDivisionError.*mine\.py:",
        also=("names",),
        build="self.scale = 1 / (pair.teacher.pooled[0] - pair.student.pooled[0])",
    ),
    "a student's group for each of the teacher's": Fault(
        "deeper_teacher",
        "IndexError.*PairError",
        also=("refusals",),
        reads=("features", "pooled"),
        extra="student.features[len(teacher.features) - 1].square().mean()",
    ),
    "a teacher's group for each of the student's": Fault(
        "deeper_student",
        "IndexError.*PairError",
        also=("refusals",),
        reads=("features", "pooled"),
        extra="teacher.features[len(student.features) - 1].square().mean()",
    ),
    "halves of maps": Fault(
        "odd_sizes",
        r"RuntimeError.*mine\.py:",
        also=("refusals",),
        reads=("features", "pooled"),
        extra="student.features[0].unflatten(3, (-1, 2)).square().mean()",
    ),
    "halves of batches": Fault(
        "batch_sizes", "RuntimeError", also=("refusals",), extra="student.pooled.unflatten(0, (2, -1)).square().mean()"
    ),
    "a difference of large numbers": Fault(
        "bf16",
        "regression is .* in bfloat16 and .*full_precision",
        extra="((embedded + 300) - (teacher.pooled + 300)).square().mean()",
    ),
    "losses itself in full precision": Fault(
        "scalars",
        "TypeError: full_precision decorates functions of tensors, and Mine.losses is given Outputs and Batch. Decorate the "
        "function that computes the term: `@full_precision` over `def distance",
        edits={
            "    def losses(": "    @full_precision\n    def losses(",
            "import random": "import random\nfrom kdbench import full_precision",
        },
    ),
    "a root of nothing": Fault(
        "extremes", "not finite where all samples are alike", also=("refusals",), extra="embedded.var(0).sqrt().mean()"
    ),
    "a quotient by the teacher's spread": Fault(
        "extremes",
        "not finite where all samples are alike to both networks",
        also=("refusals",),
        extra="embedded.square().mean() / (teacher.pooled - teacher.pooled.mean(0)).square().sum()",
    ),
    "a mean over the images of other classes": Fault(
        "extremes",
        "not finite where all samples are alike to both networks, and of one class",
        also=("refusals",),
        extra="embedded[batch.labels != batch.labels.max()].mean()",
    ),
    "a gradient by the images": Fault(
        "scalars",
        "does not require grad. The images and the teacher's outputs carry no gradient",
        extra="torch.autograd.grad(student.pooled.sum(), batch.images, create_graph=True)[0].square().mean()",
    ),
    "maps that are classified where none are pooled": Fault(
        "refusals",
        "`pooled_maps`: RuntimeError.* in `build` with PairError, as kdbench.refuse_unclassified_maps does",
        reads=("pooled", "pooled_maps"),
        extra="(student.classify(student.pooled_maps).mean() - teacher.classify(teacher.pooled_maps).mean()).square()",
    ),
    "an exception where pre-activations are missing": Fault(
        "refusals",
        "a teacher without pre-activations: IndexError.*PairError",
        reads=("preactivations", "pooled"),
        extra="teacher.preactivations[-1].mean()",
    ),
    "a refusal when training has begun": Fault(
        "refusals",
        "a teacher without pre-activations is refused in a loss",
        edits={
            "        embedded =": "        if not teacher.preactivations: raise PairError('choose another one')\n        embedded ="
        },
    ),
    "labels taken for classes": Fault(
        "mixed_images",
        "RuntimeError: The size of tensor a",
        extra="0 * (batch.targets == batch.labels).float().mean()",
    ),
    "a refusal without a reason": Fault(
        "refusals", "is refused with 'no'", build="if not pair.teacher.preactivations: raise PairError('no')"
    ),
    "a relation between images": Fault(
        "refusals",
        "batches of one image: main.*is not finite. Refuse it with min_batch_size = 2",
        extra="(embedded[:, None] - embedded).square().sum() / (len(embedded) - 1)",
    ),
    "three classes at least": Fault(
        "refusals",
        "two classes: .*Refuse it with min_classes = 3",
        reads=("logits", "pooled"),
        extra="student.logits[:, 2].square().mean()",
    ),
    "a tensor on the CPU": Fault(
        "device",
        r"on a GPU its losses compute with a tensor that is on the CPU \(mine\.py:\d+\)\. Make it where the others",
        extra="(student.pooled * torch.ones(student.pooled.shape[1])).square().mean()",
    ),
    "a constant that is no buffer": Fault(
        "device",
        r"a tensor that is on the CPU \(mine\.py:\d+\).*keep it in a buffer",
        build="self.scales = torch.ones(pair.student.pooled)",
        extra="(self.scales * student.pooled).square().mean()",
    ),
    "numbers by NumPy": Fault(
        "device", r"call \.numpy\(\) \(mine\.py:\d+\)", extra="student.pooled.mean() * float(batch.labels.numpy().mean())"
    ),
    "a pooling that does not repeat itself on a GPU": Fault(
        "deterministic",
        r"no deterministic kernel for adaptive_avg_pool2d, .*kdbench\.pool_to",
        reads=("features", "pooled"),
        extra="F.adaptive_avg_pool2d(student.features[0], 3).square().mean()",
    ),
    "half of the batch": Fault(
        "permutation",
        "changes with the order of the batch",
        also=("refusals",),
        extra="student.pooled[: len(student.pooled) // 2].square().mean()",
    ),
    "half of the batch, at random": Fault(
        "permutation",
        "changes with the order of the batch",
        also=("refusals",),
        extra="student.pooled[: len(student.pooled) // 2].square().mean() * (1 + 0.01 * torch.rand((), generator=batch.generator))",
    ),
    "the teacher's outputs in place": Fault(
        "untouched", "it changes the teacher's outputs", also=TRAINED, extra="0 * teacher.pooled.clamp_(max=0.5).sum()"
    ),
    "the labels in place": Fault("untouched", "it changes the batch", also=TRAINED, extra="0 * batch.labels.clamp_(max=3).sum()"),
    "another seed each time": Fault(
        "repeatable",
        "two trainings with the same seed differ",
        also=("resumable", "alone_or_beside"),
        build="self.scale = random.SystemRandom().random()",
        extra="self.scale * student.pooled.square().mean()",
    ),
    "a draw that no seed governs": Fault(
        "reads",
        "two calls on the same inputs differ",
        also=("bf16", *TRAINED),
        extra="next(TURNS) * (1 + random.SystemRandom().random()) * student.pooled.square().mean()",
        edits={"import random": "import itertools\nimport random\nTURNS = itertools.cycle((1, 100))"},  # no two draws are near
    ),
    "a running mean that is no buffer": Fault(
        "resumable",
        "ends with other weights. Keep what must outlive a step in buffers",
        also=("device",),
        build="self.mean = torch.zeros(pair.teacher.pooled)",
        extra="(embedded - self.moved(teacher)).square().mean()",
        members=MEMORY,
    ),
    "the weight of the cross-entropy counts steps": Fault(
        "resumable",
        "ends with other weights. Keep what must outlive a step in buffers",
        build="self.steps = 0",
        extra="self.counted()",
        members=COUNTED,
    ),
    "an adapter in the class": Fault(
        "alone_or_beside",
        "no optimiser has it",
        also=("device",),
        edits={
            "self.embed = nn": "type(self).shared = self.embed = nn",
            "self.embed(student.pooled)": "self.shared(student.pooled)",
        },
    ),
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A method that `kdbench new method` wrote; what is registered, or done to another method, is forgotten after the test."""
    monkeypatch.setattr(METHODS.get("kd"), "losses", METHODS.get("kd").losses)
    forget = METHODS.snapshot()
    yield new_method("mine", tmp_path)[0]
    forget()


def failures(checks: Sequence[Check]) -> dict[str, str]:
    return {check.name.replace(" ", "_"): check.reason for check in checks if check.status == "fail"}


REVERSED = """
    def reversed(self, value):
        return (1 + self.params.strength) * value.detach() - self.params.strength * value
"""
WARMTH = """
    def warmth(self, batch):
        strength = (1 if self.params.uphill else -1) * min(1, (batch.epoch - 80) / 10)
        return 1 + 20 * torch.sigmoid((1 + strength) * self.raw.detach() - strength * self.raw)
"""
SLOW = """
    def followed(self, student):
        with torch.no_grad():
            self.slow.weight.lerp_(self.embed.weight, self.params.share)
        return F.mse_loss(self.slow(student.pooled), self.embed(student.pooled))
"""
SECOND = "self.second = nn.Linear(pair.student.pooled[0], 3).requires_grad_(False)"
SLOWER = "self.slow = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0], bias=False).requires_grad_(False)"


@pytest.mark.parametrize(
    "nothing",
    [
        Fault("", ""),
        Fault("", "", params="share: float = 0.5", extra="self.annealed(batch)", members=ANNEALED),
        Fault(
            "",
            "",
            params="strength: float = 0.5",
            build=SECOND,
            extra="(self.reversed(embedded).square().mean() + self.second(student.pooled).square().mean())",
            members=REVERSED,
            edits={"CE(z_s, y) + beta mean((W p_s - p_t)^2)": "CE + beta |W p_s - p_t|^2"},
        ),
        Fault(
            "",
            "",
            params="uphill: bool = True",
            build="self.raw = nn.Parameter(torch.ones(()))",
            extra="student.pooled.square().mean() / self.warmth(batch)",
            members=WARMTH,
            edits={"    Transfers: ": "    Takes: ", "CE(z_s, y) + beta mean((W p_s - p_t)^2)": "CE and beta D[p_s, p_t]"},
        ),
        Fault(
            "",
            "",
            params="share: float = 0.5; rate: float = 0.5",
            build=SLOWER,
            extra="self.followed(student)",
            members=SLOW + OWN_RATE,
        ),
        Fault(
            "",
            "",
            members="    views = ('strong', 'rotations', 'mixup')\n",
            reads=("logits", "pooled"),
            extra="(student.views['strong'].pooled.mean() - teacher.views['strong'].pooled.mean()).square() + "
            "sum(F.cross_entropy(student.views[name].logits, batch.views[name].labels) for name in ('rotations', 'mixup'))",
        ),
        Fault("", "", members="    several_teachers = True\n", extra="(embedded - teacher.others[0].pooled).square().mean()"),
        survey("", "", {}),
        Fault("", "", extra="(student.classify(student.pooled.detach()) - teacher.classify(embedded)).square().mean()"),
        Fault(
            "",
            "",
            reads=("logits", "pooled"),
            params="share: float = 0.5",
            extra="self.params.share * ((teacher.logits.softmax(1).amax(1) > 0.9) * student.logits.square().sum(1)).mean()",
        ),
    ],
    ids=[
        "plain",
        "the weight of the cross-entropy follows the epoch",
        "a reversed gradient, a frozen network and a formula without a parenthesis",
        "a learnt temperature whose reversed gradient has a sign to choose, late in the training",
        "a frozen network that follows one that learns at a rate of its own",
        "every view",
        "two teachers",
        "a survey",
        "both classifiers",
        "a term of images of which the teacher is sure",
    ],
)
def test_the_method_that_faults_are_put_into_is_sound(nothing: Fault, mine: Path) -> None:
    mine.write_text(nothing.put_into(mine.read_text()))
    assert failures(conformance.check(str(mine))) == {}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_check_finds_the_method_that_breaks_its_promise_and_no_other_does(fault: Fault, mine: Path) -> None:
    mine.write_text(fault.put_into(mine.read_text()))
    found = failures(conformance.check(str(mine)))
    assert set(found) == {fault.check, *fault.also}, found
    assert re.search(fault.reason, found[fault.check]), found[fault.check]


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("float(student.pooled.mean()) * student.pooled.mean()", r"they wait for the GPU \(mine\.py:"),
        ("student.pooled[batch.labels == 0].sum()", r"they wait for the GPU \(mine\.py:"),
        ("(student.pooled * torch.ones(len(student.pooled), 1)).mean()", r"on a GPU .* on the CPU \(mine\.py:"),
        ("student.pooled.mean() * float(batch.labels.numpy().mean())", r"call \.numpy\(\) \(mine\.py:"),
    ],
)
def test_losses_are_tried_on_a_gpu_also_where_torch_knows_of_none(
    mine: Path, extra: str, reason: str, built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write_text(Fault("", "", extra=extra).put_into(mine.read_text()))
    tested = MethodUnderTest(*registered(str(mine)))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    assert re.search(reason, run_check(devices.device, tested).reason)


def test_every_check_is_shown_to_find_something() -> None:
    assert {"file", *(fault.check for fault in FAULTS.values())} == {test.__name__ for test in CHECKS}


def test_a_long_file_fails_among_kdbenchs_own_and_is_a_remark_elsewhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.write_text(Fault("", "", members="\n" * 100).put_into(mine.read_text()))
    monkeypatch.setattr(conformance, "CHECKS", [declarations.file])
    (found,) = conformance.check(str(mine))
    assert found.status == "pass" and re.fullmatch(r"this one has 1\d\d", found.reason)
    monkeypatch.setattr(declarations, "shipped", lambda folder: mine.parent)
    (found,) = conformance.check(str(mine))
    assert found.status == "fail" and re.match(r"the file has 1\d\d lines", found.reason)


def test_what_is_transferred_is_asked_of_kdbenchs_own_methods_alone(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.write_text(mine.read_text().replace("    Transfers: ", "    Takes: "))
    monkeypatch.setattr(conformance, "CHECKS", [declarations.docstring])
    (found,) = conformance.check(str(mine))
    assert (found.status, found.reason) == ("pass", "")
    monkeypatch.setattr(declarations, "shipped", lambda folder: mine.parent)
    (found,) = conformance.check(str(mine))
    assert found.status == "fail" and "has no line `Transfers:`. Say what" in found.reason


def test_a_method_of_kdbenchs_own_may_name_no_family(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.write_text(mine.read_text().replace("Transfers: pooled features (features)", "Transfers: pooled features"))
    monkeypatch.setattr(conformance, "CHECKS", [declarations.docstring])
    monkeypatch.setattr(declarations, "shipped", lambda folder: mine.parent)
    (found,) = conformance.check(str(mine))
    assert (found.status, found.reason) == ("pass", "its line `Transfers:` ends without a family, such as (logits)")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("", "", members="    def stage(self): pass\n"), "nothing uses `stage`.* Did you mean 'stages'"),
        (Fault("", "", build="self.param_groups = [1]"), "nothing uses `param_groups`"),
        (Fault("", "", members="    def half(self, x): return x / 2\n", extra="0 * self.half(embedded).sum()"), None),
    ],
)
def test_a_public_name_is_read_by_kdbench_or_by_its_file(
    fault: Fault, reason: str | None, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "CHECKS", [declarations.names])
    mine.write_text(fault.put_into(mine.read_text()))
    (found,) = conformance.check(str(mine))
    assert found.status == ("fail" if reason else "pass")
    assert re.match(reason or "", found.reason)


@pytest.mark.parametrize(
    ("test", "build", "extra", "remark"),
    [
        (
            gradients.registered,
            "self.second = nn.BatchNorm1d(pair.student.pooled[0]).requires_grad_(False)",
            "self.second(student.pooled).square().mean()",
            r"the statistics of second change although nothing there learns; call \.eval\(\) on it in `build`",
        ),
        (
            gradients.registered,
            "self.second = nn.Sequential(nn.Linear(pair.student.pooled[0], 3), nn.Dropout(0.5)).requires_grad_(False)",
            "self.second(student.pooled).square().mean()",
            r"second\.1 draws at random although nothing there learns; call \.eval\(\) on it in `build`",
        ),
        (
            gradients.registered,
            "self.second = nn.BatchNorm1d(pair.student.pooled[0]).requires_grad_(False).eval()",
            "self.second(student.pooled).square().mean()",
            "$",
        ),
        (
            loss_values.batch_sizes,
            "pass",
            "student.pooled.square().sum()",
            r"if each image is there twice, main\.mine\.regression is .* times as large; take the mean",
        ),
        (loss_values.batch_sizes, "pass", "student.pooled.square().sum(1).mean()", "$"),
    ],
    ids=["moving statistics", "dropout", "in evaluation mode", "a sum over the batch", "a mean over the batch"],
)
def test_what_may_be_meant_is_a_remark(
    test: Callable[[MethodUnderTest], str | None], build: str, extra: str, remark: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "CHECKS", [test])
    mine.write_text(Fault("", "", build=build, extra=extra).put_into(mine.read_text()))
    (found,) = conformance.check(str(mine))
    assert found.status == "pass"
    assert re.match(remark, found.reason), found.reason


def test_a_stage_of_the_teacher_leaves_what_it_does_not_train_to_the_main_training() -> None:
    setting = MethodUnderTest("ft").default_setting
    lane = setting.lane()
    ft, built = lane.method.parts["ft"], setting.method().parts["ft"]

    def same(part: str) -> bool:
        now, then = (next(getattr(method, part).parameters()) for method in (ft, built))
        return bool(now.equal(then))

    assert not same("encoder")
    assert same("translator")
    setting.train(lane)
    assert not same("translator")


def test_a_method_that_does_no_pair_fails_with_its_reason(mine: Path) -> None:
    mine.write_text(Fault("", "", build="raise PairError('it needs a network that nobody has')").put_into(mine.read_text()))
    by_name = {check.name: check for check in conformance.check(str(mine))}
    assert by_name["scalars"].status == "fail"
    assert "it needs a network that nobody has" in by_name["scalars"].reason
    assert by_name["equal"].status == "untried"


def test_one_mistake_in_the_losses_is_told_once(mine: Path) -> None:
    mine.write_text(Fault("", "", extra="student.poled").put_into(mine.read_text()))
    checks = conformance.check(str(mine))
    assert [check.name for check in checks if check.status == "fail"] == ["scalars"]
    assert as_text(checks).count("poled") == 1
    assert as_text(checks).endswith(f"1 failed, 4 passed, {len(CHECKS) - 5} not tried, since the losses could not be computed")


def test_what_a_step_and_a_training_fail_by_is_told_once(mine: Path) -> None:
    mine.write_text(Fault("", "", extra="(student.poled if batch.epoch == 0 else 0)").put_into(mine.read_text()))
    failed = [check for check in conformance.check(str(mine)) if check.status == "fail"]
    assert {"equal", "repeatable"} <= {check.name for check in failed}
    assert as_text(failed).count("poled") == 1


def test_a_file_is_checked_whether_or_not_it_is_loaded(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "CHECKS", CHECKS[:4])
    assert conformance.check(str(mine)) == conformance.check(str(mine)) == conformance.check("mine")


def test_the_table_says_what_passed_what_failed_and_what_to_do() -> None:
    checks = [
        Check("equal", "Two networks train.", "refused", "the student is too small. Choose another."),
        Check("permutation", "The losses do not depend on the order.", "pass", "it draws at random"),
        Check("reads", "`reads` is right.", "fail", "it reads ['pooled']. Write reads = ('pooled',)."),
        Check("bf16", "It trains.", "fail", "RuntimeError: a parameter of shape (64, 2) is lost. Make it an attribute."),
        Check("resumable", "It resumes.", "fail", "RuntimeError: a parameter of shape (2, 2) is lost. Keep it."),
    ]
    assert as_text(checks).splitlines() == [
        "refused  equal        The student is too small. Choose another.",
        "pass     permutation  The losses do not depend on the order: it draws at random.",
        "fail     reads        It reads ['pooled']. Write reads = ('pooled',).",
        "fail     bf16         RuntimeError: a parameter of shape (64, 2) is lost. Make it an attribute.",
        "fail     resumable    The same as 'bf16'.",
        "3 failed, 1 refused, 1 passed",
    ]
    assert json.loads(json.dumps(as_json(checks)))[0] == {
        "name": "equal",
        "promise": "Two networks train.",
        "status": "refused",
        "reason": "the student is too small. Choose another.",
    }


def test_what_cannot_be_checked_is_a_mistake_of_the_user(mine: Path) -> None:
    with pytest.raises(KdbenchError, match=r"unknown method 'kdd'\. Did you mean 'kd'"):
        conformance.check("kdd")
    with pytest.raises(KdbenchError, match=r"no plugin at nowhere\.py"):
        conformance.check("nowhere.py")
    source = mine.read_text()
    mine.write_text(source + source[source.index("@register") :].replace('"mine"', '"yours"'))
    with pytest.raises(KdbenchError, match=r"registers mine, yours, not one method\. Check by name"):
        conformance.check(str(mine))
