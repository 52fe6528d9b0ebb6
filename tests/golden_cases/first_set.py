"""Methods until 2022, and standardised KD."""

import sys
from dataclasses import replace
from typing import Any

import torch
from golden_numbers import Golden, batch_of, case, method, pair_of, plain, total

from kdbench import Outputs
from kdbench.method.interface import METHODS

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
        golden.loss_agrees(total(dist.losses(student, teacher, batch_of())), suffix)


def factors_agree(golden: Golden, ft: Any, student: Outputs, teacher: Outputs) -> None:
    """The loss of a form of FT, and that of its paraphraser."""
    golden.loss_agrees(total(ft.losses(student, teacher, batch_of())))
    reconstruction = total(ft.stages()[0].losses(teacher, teacher, batch_of()))
    golden.agrees("reconstruction.loss", reconstruction)
    golden.gradients_agree(reconstruction, {f"grad.reconstruction.{leaf}": leaf for leaf in golden.leaves if "paraphraser" in leaf})


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
    factors_agree(golden, ft, student, teacher)


@case("ft_repdistiller")
def _ft_repdistiller(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ft = method("ft_repdistiller", pair_of(student, teacher), k=0.5, beta=1)
    theirs = {  # RepDistiller's paraphraser has a place for the batch norm that it leaves out; our layers do not
        "paraphraser.encoder": (ft.encoder, {0: 0, 3: 2, 6: 4}),
        "paraphraser.decoder": (ft.decoder, {0: 0, 3: 2, 6: 4}),
        "translator.encoder": (ft.translator, {i: i for i in (0, 1, 3, 4, 6, 7)}),
    }
    golden.load(
        {
            f"{key}.{i}.{kind}": getattr(layers[place], kind)
            for key, (layers, places) in theirs.items()
            for i, place in places.items()
            for kind in ("weight", "bias")
        }
    )
    factors_agree(golden, ft, student, teacher)


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
    golden.loss_agrees(total(hint.losses(student, teacher, batch_of())))


@case("cc")
def _cc(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    cc = method("cc", pair_of(student, teacher), beta=1, dimensions=16)
    embeddings = {"embed_s": cc.embed_student, "embed_t": cc.embed_teacher}
    golden.load({f"{key}.linear.{kind}": getattr(embeddings[key], kind) for key in embeddings for kind in ("weight", "bias")})
    golden.loss_agrees(total(cc.losses(student, teacher, batch_of())))


@case("vid")
def _vid(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    vid = method("vid", pair_of(student, teacher), beta=1, initial_variance=5)
    golden.load({f"vid.{key}": parameter for key, parameter in vid.gaussians[0].named_parameters()})
    golden.loss_agrees(total(vid.losses(student, teacher, batch_of())))


@case("ab")
def _ab(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ab = method("ab", pair_of(student, teacher), beta=3 / 1000, margin=1)
    for i, connector in enumerate(ab.connectors):
        for layer, module in zip(("conv", "bn"), connector, strict=True):
            golden.load({f"connector.connectors.{i}.{layer}.{kind}": getattr(module, kind) for kind in ("weight", "bias")})
    golden.loss_agrees(total(ab.stages()[0].losses(student, teacher, batch_of())))


@case("fsp")
def _fsp(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    golden.loss_agrees(sys.modules[METHODS.get("fsp").__module__].flow_loss(student.features, teacher.features))
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
    golden.loss_agrees(total(ofd.losses(student, teacher, batch_of())))


@case("reviewkd")
def _reviewkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    teacher = replace(teacher, preactivations=teacher.features)  # what the authors compare with; the file calls them features
    reviewkd = method("reviewkd", pair_of(student, teacher), beta=1)
    for i, fusion in enumerate(reviewkd.fusions):
        ours = {key.replace("attention", "att_conv"): parameter for key, parameter in fusion.named_parameters()}
        golden.load({f"abf.{i}.{key}": parameter for key, parameter in ours.items()})
    golden.loss_agrees(total(reviewkd.losses(student, teacher, batch_of())))


@case("crd")
def _crd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    crd = method("crd", pair_of(student, teacher), beta=1, dimensions=16, negatives=12, temperature=0.07, momentum=0.5)
    embeddings = {"embed_s": crd.embed_student, "embed_t": crd.embed_teacher}
    golden.load({f"crd.{key}.linear.{kind}": getattr(embeddings[key], kind) for key in embeddings for kind in ("weight", "bias")})
    index, drawn = golden.tensors["index"], golden.tensors["contrast_index"]
    assert torch.equal(drawn[:, 0], index)  # the positive, which we do not draw
    student_2 = golden.tensors["student.pooled.second_step"]
    crd.bank_student.vectors.copy_(golden.tensors["crd.contrast.memory_v1"])
    crd.bank_teacher.vectors.copy_(golden.tensors["crd.contrast.memory_v2"])
    assert golden.tensors["crd.contrast.params"][2:4].eq(-1).all()  # normalisers that the first step sets

    loss = crd.contrast(student.pooled, teacher.pooled, index, drawn[:, 1:])
    golden.loss_agrees(loss)
    golden.agrees("loss.second_step", crd.contrast(student_2, teacher.pooled, index, drawn[:, 1:]))
    golden.agrees("after.crd.contrast.memory_v1", crd.bank_student.vectors)
    golden.agrees("after.crd.contrast.memory_v2", crd.bank_teacher.vectors)
    k, temperature, *_, momentum = golden.tensors["after.crd.contrast.params"]
    normalisers = crd.bank_teacher.log_normaliser.exp(), crd.bank_student.log_normaliser.exp()
    golden.agrees("after.crd.contrast.params", torch.stack((k, temperature, *normalisers, momentum)))


@case("simkd")
def _simkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    parts = {f"classifier_{kind}": golden.tensors[f"teacher.classifier.{kind}"] for kind in ("weight", "bias")}
    simkd = method("simkd", pair_of(student, teacher, **parts), beta=1, factor=2)
    golden.load({f"transfer.{key}": parameter for key, parameter in simkd.projector.named_parameters()})
    golden.loss_agrees(total(simkd.losses(student, teacher, batch_of())))
    golden.agrees("prediction", simkd.predict(student))
