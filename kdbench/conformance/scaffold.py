"""`kdbench new method`: a working method and its test, to be changed into one's own."""

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_shipped
from kdbench.suite.scaffold import write_new

METHOD = '''\
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, register

# Check it: kdbench check NAME.py. Compare it: kdbench run quick --methods scratch,kd,NAME --plugin NAME.py


@register("NAME")
class CLASS(Method):
    r"""CE(z_s, y) + beta mean((W p_s - p_t)^2)

    The first line is the formula of the whole loss. Explain the symbols here: p are pooled vectors, W is a linear layer
    that learns.

    Transfers: pooled features (features)
    Paper: none yet. Name authors, title, venue, year and arXiv number.
    Code: none yet. Give the authors' repository.
    Deviations: none. Say where this file differs from the authors' code.
    """

    # What the losses read, of the student and of the teacher. Of B images: `logits` (B, K), `stem` and each of `features` and
    # `preactivations` (B, C, H, W), `pooled` (B, D). Nothing, `()`, for a method without a teacher.
    reads = ("pooled",)
    # The parameters that weigh the terms against the cross-entropy; kdbench names them when the balance is far off.
    weights = ("beta",)
    # What compares the images of a batch with each other needs two of them: min_batch_size = 2. See also min_classes.

    class Params(MethodParams):
        # One line each, with the authors' value as default. A suite sets them: methods: [{NAME: {beta: 2}}].
        beta: NonNegativeFloat = 1.0

    params: Params

    def build(self, pair: Pair) -> None:
        # Adapters, from the shapes of the pair, as submodules: they are trained, moved and saved automatically. What must
        # outlive a step and is not trained is a buffer. The cross-entropy has the weight self.ce_weight = 1; set another here.
        # A pair that the method cannot do is refused here: raise kdbench.PairError("what is missing, and what to choose").
        self.embed = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])

    # A training before the main one, of the student or of adapters alone: define `stages` and return kdbench.Stage there.

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        # Named terms, each with its weight, without the cross-entropy. The batch has the images, labels, sample indices, epoch,
        # and a random generator. Compute differences of nearly equal numbers in a function of tensors that is decorated with
        # kdbench.full_precision.
        return {"regression": self.params.beta * F.mse_loss(self.embed(student.pooled), teacher.pooled)}
'''

TEST = '''\
"""What `NAME` computes, by hand, and what kdbench promises of every method."""

from pathlib import Path

import torch

from kdbench import Batch, Outputs, Pair, TeacherParts, conformance
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_path

FILE = Path(__file__).with_name("NAME.py")
load_path(FILE)


def outputs(width: int, *, seed: int) -> Outputs:
    """Random outputs of a network with one group, for 4 images and 10 classes."""
    random = torch.Generator().manual_seed(seed)
    maps = torch.randn(4, width, 8, 8, generator=random, dtype=torch.float64)
    logits = torch.randn(4, 10, generator=random, dtype=torch.float64)
    return Outputs(logits, stem=maps, features=(maps.relu(),), preactivations=(maps,), pooled=maps.relu().mean((2, 3)))


def test_the_loss_is_the_formula() -> None:
    student, teacher = outputs(6, seed=0), outputs(8, seed=1)
    parts = TeacherParts(classifier_weight=torch.zeros(10, 8), classifier_bias=torch.zeros(10), norms=())
    pair = Pair(student.shapes(), teacher.shapes(), labels=torch.arange(40) % 10, teacher_parts=parts, image_shape=(3, 8, 8))
    batch = Batch(torch.zeros(4, 3, 8, 8), torch.arange(4), torch.arange(4), epoch=0, epochs=1, generator=torch.Generator())

    cls = METHODS.get("NAME")
    method = cls(cls.Params(beta=3.0), pair).double()
    terms = method.losses(student, teacher, batch)

    mapped = student.pooled @ method.embed.weight.T + method.embed.bias
    torch.testing.assert_close(terms["regression"], 3 * ((mapped - teacher.pooled) ** 2).mean())


def test_it_keeps_every_promise() -> None:
    checks = conformance.check(str(FILE))
    assert all(check.status != "fail" for check in checks), conformance.as_text(checks)
'''


def new_method(name: str, directory: Path) -> list[Path]:
    """Write `NAME.py`, a method that works and passes `kdbench check`, and `test_NAME.py`.

    Returns:
        The files written.

    Raises:
        KdbenchError: the name cannot be used, or a file is there already; nothing was written.
    """
    load_shipped()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise KdbenchError(
            f"'{name}' cannot name a method and its file. Use small letters, digits and underscores, as in my_method."
        )
    if name in METHODS:
        raise KdbenchError(f"the method '{name}' exists already, in {METHODS.entry(name).file}. Choose another name.")
    files = {directory / f"{name}.py": METHOD, directory / f"test_{name}.py": TEST}
    if name in sys.stdlib_module_names or find_spec(name):
        raise KdbenchError(f"{name}.py would hide the Python module '{name}' from its own test. Choose another name.")
    if re.search(rf"\b{_class(name)}\b", METHOD[: METHOD.index("#")]):
        raise KdbenchError(f"the class of '{name}' would be {_class(name)}, which the file imports. Choose another name.")
    return write_new({file: text.replace("NAME", name).replace("CLASS", _class(name)) for file, text in files.items()})


def _class(name: str) -> str:
    """`my_method` as `MyMethod`."""
    return "".join(part.capitalize() for part in name.split("_"))
