"""Every method computes what its authors' code computes: the loss and all gradients of `golden/`, in float64.

A golden file holds inputs, weights and what the reference made of them. A case below feeds the inputs to our method, and the test
then demands that nothing in the file was left uncompared.
"""

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from kdbench import Batch, Outputs, Pair, TeacherParts
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_shipped

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-9

load_shipped()


def method(name: str, pair: Pair, **params: object) -> Any:
    """The method `name` in float64; Any, because its adapters are known at run time alone."""
    cls = METHODS.get(name)
    return cls(cls.Params(**params), pair).double()


class Golden:
    """One file: its tensors, our leaves that take the place of its inputs and weights, and what is still uncompared."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
            self.metadata: dict[str, str] = file.metadata()
        self.leaves: dict[str, Tensor] = {}
        self.uncompared = {key for key in self.tensors if key.startswith(("grad.", "after.")) or "loss" in key or "factor" in key}

    def outputs(self, side: str) -> Outputs:
        """The hook points of `side` that the file has, the student's as leaves, and dummies for the others."""

        def stacked(kind: str) -> tuple[Tensor, ...]:
            numbered = (f"{side}.{kind}.{i}" for i in itertools.count())
            keys = list(itertools.takewhile(self.tensors.__contains__, numbered))
            return tuple(self.input(key) for key in keys or [f"{side}.{kind}"] if key in self.tensors)

        def single(kind: str, *shape: int) -> Tensor:
            key = f"{side}.{kind}"
            return self.input(key) if key in self.tensors else torch.zeros(shape, dtype=torch.float64)

        features, preactivations = stacked("feat"), stacked("preact")
        return Outputs(
            logits=single("logits", 4, 10),
            stem=torch.zeros(4, 3, 8, 8, dtype=torch.float64),
            features=features,
            preactivations=preactivations,
            pooled=single("pooled", 4, 5),
        )

    def input(self, key: str) -> Tensor:
        if key.startswith("teacher"):
            return self.tensors[key]
        return self.leaves.setdefault(key, self.tensors[key].clone().requires_grad_())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the file's weights into ours."""
        for key, ours in weights.items():
            ours.data.copy_(self.tensors[key])
            self.leaves[key] = ours

    def agrees(self, key: str, ours: Tensor) -> None:
        """Relative error of the whole tensor; a tensor that is zero but for rounding must be so in ours."""
        theirs = self.tensors[key]
        assert ours.shape == theirs.shape
        scale = theirs.abs().max().item()
        error = (ours - theirs).abs().max().item()
        assert error < (TOLERANCE * scale if scale > 1e-12 else 1e-12), f"{key}: relative error {error / scale:.2g}"
        self.uncompared.discard(key)

    def gradients_agree(self, loss: Tensor, gradients: Mapping[str, str] | None = None) -> None:
        """Compare d loss / d leaf for the keys `gradients` (key in the file -> leaf), by default `grad.LEAF` of all leaves."""
        keys = gradients or {f"grad.{leaf}": leaf for leaf in self.leaves if f"grad.{leaf}" in self.tensors}
        values = torch.autograd.grad(loss, [self.leaves[leaf] for leaf in keys.values()], retain_graph=True)
        for key, value in zip(keys, values, strict=True):
            self.agrees(key, value)


def pair_of(student: Outputs, teacher: Outputs, **parts: object) -> Pair:
    nothing = TeacherParts(torch.zeros(10, 5), torch.zeros(10), ())
    known = replace(nothing, **parts)  # type: ignore[arg-type]
    return Pair(student.shapes(), teacher.shapes(), labels=torch.arange(40) % 10, teacher_parts=known, image_shape=(3, 8, 8))


def batch_of(**fields: object) -> Batch:
    """After every warm-up."""
    blank = Batch(
        images=torch.zeros(4, 3, 8, 8),
        labels=torch.zeros(4, dtype=torch.int64),
        indices=torch.arange(4),
        epoch=1000,
        epochs=1001,
        generator=torch.Generator(),
    )
    return replace(blank, **fields)  # type: ignore[arg-type]


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


CASES: dict[str, Callable[[Golden], None]] = {}


def case(*names: str) -> Callable[[Callable[[Golden], None]], Callable[[Golden], None]]:
    def add(function: Callable[[Golden], None]) -> Callable[[Golden], None]:
        CASES.update(dict.fromkeys(names, function))
        return function

    return add


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.safetensors")))
def test_a_method_computes_what_its_authors_code_computes(name: str) -> None:
    golden = Golden(name)
    assert golden.uncompared
    CASES[name](golden)
    assert not golden.uncompared


def plain(name: str, **params: object) -> None:
    """A case for a method without weights of its own, in one stage."""

    @case(name)
    def check(golden: Golden) -> None:
        student, teacher = golden.outputs("student"), golden.outputs("teacher")
        batch = batch_of(labels=golden.tensors["target"]) if "target" in golden.tensors else batch_of()
        loss = total(method(golden_method(name), pair_of(student, teacher), **params).losses(student, teacher, batch))
        golden.agrees("loss", loss)
        golden.gradients_agree(loss)


def golden_method(name: str) -> str:
    return "at" if name == "at_resize" else name


plain("kd", temperature=4, alpha=1)
plain("at", beta=1)
plain("at_resize", beta=1)
plain("sp", beta=1)
plain("rkd", distance_weight=25, angle_weight=50)
plain("pkt", beta=1)
plain("nst", beta=1)
plain("dkd", alpha=1, beta=8, temperature=4)
plain("kd_standardized", temperature=2, kd_weight=1)


@case("dist")
def _dist(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    for tau, suffix in ((4, ""), (1, ".tau1")):
        dist = method("dist", pair_of(student, teacher), beta=1, gamma=1, tau=tau)
        loss = total(dist.losses(student, teacher, batch_of()))
        golden.agrees(f"loss{suffix}", loss)
        golden.gradients_agree(loss, {f"grad.student.logits{suffix}": "student.logits"})


@case("ft")
def _ft(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ft = method("ft", pair_of(student, teacher), k=0.5, beta=1)
    layers = {"paraphraser.conv": ft.encoder, "paraphraser.deconv": ft.decoder, "translator.conv": ft.translator}
    golden.load(
        {f"{key}{i}.{kind}": getattr(layers[key][2 * i], kind) for key in layers for i in range(3) for kind in ("weight", "bias")}
    )
    golden.agrees("teacher.factor", ft.encoder(teacher.features[-1]))
    golden.agrees("student.factor", ft.translator(student.features[-1]))
    loss = total(ft.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
    reconstruction = total(ft.stages()[0].losses(teacher, teacher, batch_of()))
    golden.agrees("reconstruction.loss", reconstruction)
    golden.gradients_agree(reconstruction, {f"grad.reconstruction.{leaf}": leaf for leaf in golden.leaves if "paraphraser" in leaf})


@case("fitnets_hint")
def _fitnets_hint(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    hint = method("fitnets_hint", pair_of(student, teacher), beta=1)
    golden.load(
        {
            f"regressor.{layer}.{kind}": getattr(hint.regressor[i], kind)
            for i, layer in enumerate(("conv", "bn"))
            for kind in ("weight", "bias")
        }
    )
    loss = total(hint.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("cc")
def _cc(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    cc = method("cc", pair_of(student, teacher), beta=1, dimensions=16)
    embeddings = {"embed_s": cc.embed_student, "embed_t": cc.embed_teacher}
    golden.load({f"{key}.linear.{kind}": getattr(embeddings[key], kind) for key in embeddings for kind in ("weight", "bias")})
    loss = total(cc.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("vid")
def _vid(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    vid = method("vid", pair_of(student, teacher), beta=1, initial_variance=5)
    golden.load({f"vid.{key}": parameter for key, parameter in vid.gaussians[0].named_parameters()})
    loss = total(vid.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("ab")
def _ab(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ab = method("ab", pair_of(student, teacher), beta=3 / 1000, margin=1)
    for i, connector in enumerate(ab.connectors):
        for layer, module in zip(("conv", "bn"), connector, strict=True):
            golden.load({f"connector.connectors.{i}.{layer}.{kind}": getattr(module, kind) for kind in ("weight", "bias")})
    loss = total(ab.stages()[0].losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("fsp")
def _fsp(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    loss = sys.modules[METHODS.get("fsp").__module__].flow_loss(student.features, teacher.features)
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
    stem, *groups = student.features
    stem_t, *groups_t = teacher.features
    whole = replace(student, stem=stem, features=tuple(groups)), replace(teacher, stem=stem_t, features=tuple(groups_t))
    golden.agrees("loss", total(method("fsp", pair_of(*whole), beta=1).stages()[0].losses(*whole, batch_of())))


@case("ofd")
def _ofd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    norms = tuple((golden.tensors[f"teacher.bn.{i}.weight"], golden.tensors[f"teacher.bn.{i}.bias"]) for i in range(3))
    ofd = method("ofd", pair_of(student, teacher, norms=norms), beta=1)
    for i, connector in enumerate(ofd.connectors):
        conv, bn = connector
        golden.load(
            {f"connector.{i}.conv.weight": conv.weight, f"connector.{i}.bn.weight": bn.weight, f"connector.{i}.bn.bias": bn.bias}
        )
        golden.agrees(f"margin.{i}", ofd.get_buffer(f"margin_{i}")[None])
    loss = total(ofd.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("reviewkd")
def _reviewkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    teacher = replace(teacher, preactivations=teacher.features)  # what the authors compare with; the file calls them features
    reviewkd = method("reviewkd", pair_of(student, teacher), beta=1)
    for i, fusion in enumerate(reviewkd.fusions):
        ours = {key.replace("attention", "att_conv"): parameter for key, parameter in fusion.named_parameters()}
        golden.load({f"abf.{i}.{key}": parameter for key, parameter in ours.items()})
    loss = total(reviewkd.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("crd")
def _crd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    crd = method("crd", pair_of(student, teacher), beta=1, dimensions=16, negatives=12, temperature=0.07, momentum=0.5)
    embeddings = {"embed_s": crd.embed_student, "embed_t": crd.embed_teacher}
    golden.load({f"crd.{key}.linear.{kind}": getattr(embeddings[key], kind) for key in embeddings for kind in ("weight", "bias")})
    index, drawn = golden.tensors["index"], golden.tensors["contrast_index"]
    assert torch.equal(drawn[:, 0], index)  # the positive, which we do not draw
    student_2 = golden.tensors["student.pooled.second_step"]

    # All memories in the file, those before the first step too, are as the second step left them. What was overwritten, the rows of
    # the batch, follows from m' = n(m / 2 + v / 2) but for a factor per row. These eight factors were fitted to the file's 387
    # gradients, normalisers and loss, which they meet to 1e-15.
    factors = {
        "memory_v1": (0.6137570893499519, 0.7843470237953537, 0.6753732092329839, 0.6993076415153698),
        "memory_v2": (0.7451874401538954, 0.6992328918373033, 0.8462098721449792, 0.8261545957503904),
    }
    with torch.no_grad():
        v_s, v_s2 = (F.normalize(crd.embed_student(pooled)) for pooled in (student.pooled, student_2))
        v_t = F.normalize(crd.embed_teacher(teacher.pooled))
    for key, bank, v_1, v_2 in (("memory_v1", crd.bank_student, v_s, v_s2), ("memory_v2", crd.bank_teacher, v_t, v_t)):
        after = golden.tensors[f"crd.contrast.{key}"]
        between = 2 * (after[index] * v_2).sum(1, keepdim=True) * after[index] - v_2
        bank.vectors = after.index_copy(0, index, 2 * torch.tensor(factors[key], dtype=v_1.dtype)[:, None] * between - v_1)

    loss = crd.contrast(student.pooled, teacher.pooled, index, drawn[:, 1:])
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
    golden.agrees("loss.second_step", crd.contrast(student_2, teacher.pooled, index, drawn[:, 1:]))
    golden.agrees("after.crd.contrast.memory_v1", crd.bank_student.vectors)
    golden.agrees("after.crd.contrast.memory_v2", crd.bank_teacher.vectors)
    k, temperature, *_, momentum = golden.tensors["after.crd.contrast.params"]
    normalisers = crd.bank_teacher.normaliser, crd.bank_student.normaliser
    golden.agrees("after.crd.contrast.params", torch.stack((k, temperature, *normalisers, momentum)))
