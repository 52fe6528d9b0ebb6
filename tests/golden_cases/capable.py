"""Methods that read a live classifier, a survey or rotated images."""

import sys
from dataclasses import replace

import torch
from golden_numbers import Golden, batch_of, case, method, pair_of, total

from kdbench import Outputs


@case("catkd")
def _catkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    student, teacher = (replace(point, pooled=point.features[-1].mean((2, 3))) for point in (student, teacher))
    for normalise, suffix in ((True, ""), (False, ".raw")):
        catkd = method("catkd", pair_of(student, teacher), beta=1, normalise=normalise)
        golden.loss_agrees(total(catkd.losses(student, teacher, batch_of())), suffix)


@case("sdd")
def _sdd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    student, teacher = (replace(point, pooled=point.features[-1].mean((2, 3))) for point in (student, teacher))
    for suffix, params in (
        ("", {"loss": "kd", "temperature": 4}),
        (".m12", {"loss": "kd", "temperature": 4, "levels": 2}),
        (".dkd", {"loss": "dkd", "temperature": 4, "alpha": 1, "beta": 8}),
        (".nkd", {"loss": "nkd", "temperature": 1, "beta": 1.5}),
    ):
        sdd = method("sdd", pair_of(student, teacher), **params)
        golden.loss_agrees(total(sdd.losses(student, teacher, batch_of(labels=golden.tensors["target"]))), suffix)


@case("kdpp")
def _kdpp(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    kdpp = method("kdpp", pair_of(student, teacher), nd_weight=1, kd_weight=0)
    kdpp.class_means.means.copy_(golden.tensors["centers"])
    golden.loss_agrees(total(kdpp.losses(student, teacher, batch_of(labels=golden.tensors["target"]))))


@case("ofa")
def _ofa(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    width = torch.zeros(4, 8, dtype=torch.float64)
    student, teacher = replace(student, pooled=student.features[-1].mean((2, 3))), replace(teacher, pooled=width)
    teacher = replace(teacher, features=student.features)
    batch = batch_of(labels=golden.tensors["target"])
    for eps, suffix in ((1, ""), (1.5, ".eps1_5")):
        ofa = method("ofa", pair_of(student, teacher), eps=eps)
        for i, head in enumerate(ofa.heads, 1):
            layers = [layer for layer in head if list(layer.parameters())]
            keys = {key.rsplit(".", 1)[0] for key in golden.tensors if key.startswith(f"projector.{i}.")}
            for key, layer in zip(sorted(keys, key=natural), layers, strict=True):
                golden.load({f"{key}.{kind}": weight for kind, weight in layer.named_parameters()})
        losses = ofa.losses(student, teacher, batch)
        golden.agrees(f"loss.kd{suffix}", losses["logits"])
        golden.agrees(f"loss.ofa{suffix}", losses["stages"])
        golden.loss_agrees(total(losses), suffix)


def natural(key: str) -> list[int]:
    """The numbers in a key, to sort layers by."""
    return [int(part) for part in key.split(".") if part.isdigit()]


@case("sskd")
def _sskd(golden: Golden) -> None:
    def outputs(side: str) -> Outputs:
        plain = golden.outputs(side)
        rotated = (golden.input(f"{side}.{kind}_rotated").flatten(0, 1) for kind in ("logits", "ssp"))
        logits, ssp = rotated
        view = replace(plain, logits=logits, pooled=ssp, views={})
        return replace(plain, pooled=golden.input(f"{side}.ssp"), views={"rotations": view})

    student, teacher = outputs("student"), outputs("teacher")
    sskd = method("sskd", pair_of(student, teacher))
    sskd.head_student = sskd.head_teacher = torch.nn.Identity()
    losses = sskd.losses(student, teacher, batch_of())
    for key, term, weight in (("kd", "divergence", 0.9), ("tf", "rotations", 2.7), ("ss", "ssp", 10)):
        golden.agrees(f"loss.{key}", losses[term] / weight)
    golden.loss_agrees(total(losses))
    code = sys.modules[type(sskd).__module__]
    cosines = code.similarities(teacher.views["rotations"].pooled, teacher.pooled)
    kept = code.kept(cosines, code.turned(cosines), 0.75).nonzero().flatten()
    assert torch.equal(kept, golden.tensors["kept.ss"])
    leaves = {f"teacher.{kind}": golden.tensors[f"teacher.{kind}"].clone().requires_grad_() for kind in ("ssp", "ssp_rotated")}
    golden.leaves |= leaves
    view = replace(teacher.views["rotations"], pooled=leaves["teacher.ssp_rotated"].flatten(0, 1))
    learning = replace(teacher, pooled=leaves["teacher.ssp"], views={"rotations": view})
    (stage,) = sskd.stages()
    loss = total(stage.losses(learning, learning, batch_of()))
    golden.agrees("teacher_ssp.loss", loss)
    golden.gradients_agree(loss, {f"grad.teacher_ssp.{leaf}": leaf for leaf in leaves})
