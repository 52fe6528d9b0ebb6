"""Methods since 2021 that read logits alone."""

import math
import sys

import torch
import torch.nn.functional as F
from golden_numbers import Golden, batch_of, case, method, pair_of, plain, total

from kdbench import View
from kdbench.method.interface import METHODS

plain("normkd", temperature=2, kd_weight=1)
plain("tfkd_reg")


def variants(name: str, golden: Golden, settings: dict[str, dict[str, object]]) -> None:
    """Compare a method of logits with one file; `settings` holds the parameters of each variant, by its suffix in the file."""
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    batch = batch_of(labels=golden.tensors["target"]) if "target" in golden.tensors else batch_of()
    for suffix, params in settings.items():
        golden.loss_agrees(total(method(name, pair_of(student, teacher), **params).losses(student, teacher, batch)), suffix)


@case("nkd")
def _nkd(golden: Golden) -> None:
    variants("nkd", golden, {"": {"gamma": 1.5, "temperature": 1}, ".T3": {"gamma": 3.5, "temperature": 3}})


@case("ttm")
def _ttm(golden: Golden) -> None:
    variants("ttm", golden, {"": {"beta": 1, "gamma": 0.1}})


@case("ttm_weighted")  # wttm.py of the authors
def _ttm_weighted(golden: Golden) -> None:
    variants("ttm", golden, {"": {"beta": 1, "gamma": 0.1, "weighted": True}})


@case("ctkd")
def _ctkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    reversal = sys.modules[METHODS.get("ctkd").__module__].reversal
    for standardized, suffix in ((False, ""), (True, ".standardized")):
        ctkd = method("ctkd", pair_of(student, teacher), kd_weight=1, standardized=standardized)
        ctkd.t.data.copy_(golden.tensors["global_T"][0])
        for epoch in (1, 4, 15):
            golden.agrees(f"lambda.epoch{epoch}", torch.tensor(reversal(epoch - 1, 10), dtype=torch.float64))
            loss = total(ctkd.losses(student, teacher, batch_of(epoch=epoch - 1)))
            golden.loss_agrees(loss, suffix)
            (gradient,) = torch.autograd.grad(loss, ctkd.t)
            golden.agrees(f"grad.global_T.epoch{epoch}{suffix}", gradient[None])


@case("dkd_standardized")
def _dkd_standardized(golden: Golden) -> None:
    variants("dkd", golden, {"": {"alpha": 1, "beta": 8, "temperature": 2, "standardized": True}})


@case("eakd")
def _eakd(golden: Golden) -> None:
    variants("eakd", golden, {"": {"kd_weight": 1}, ".imagenet": {"kd_weight": 1, "entropy_bound": math.log(1000)}})


@case("rld")
def _rld(golden: Golden) -> None:
    variants("rld", golden, {"": {}, ".same_t": {"tau": 4}})


@case("wsld")
def _wsld(golden: Golden) -> None:
    variants("wsld", golden, {"": {"alpha": 1, "temperature": 2}, ".T4": {"alpha": 1, "temperature": 4}})


@case("skd")
def _skd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    terms = method("skd", pair_of(student, teacher), kd_weight=1).losses(student, teacher, batch_of())
    golden.agrees("loss.kd", terms["instances"])
    golden.agrees("loss.bc", terms["directions"])
    golden.gradients_agree(terms["directions"], {"grad.student.logits.bc": "student.logits"})
    golden.agrees("loss", total(terms))
    golden.gradients_agree(total(terms), {"grad.student.logits": "student.logits"})


def both_views(golden: Golden, parts: dict[str, torch.Tensor], with_gradients: tuple[str, ...]) -> None:
    """Compare the parts of a loss, and the gradients of some of them, at the logits of both views; "" is the whole."""
    for part, loss in parts.items():
        suffix = f".{part}" if part else ""
        golden.agrees(f"loss{suffix}", loss)
        if part in with_gradients:
            leaves = "student.logits", "student.logits_strong"
            golden.gradients_agree(loss, {f"grad.{leaf}{suffix}": leaf for leaf in leaves})


@case("mlkd", "mlkd_standardized")
def _mlkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    settings = {"temperature": float(golden.metadata["T"]), "standardized": golden.metadata["logit_stand"] == "True"}
    mlkd = method("mlkd", pair_of(student, teacher), kd_weight=1, ce_weight=1, **settings)
    labels = golden.tensors["target"]
    terms = mlkd.losses(student, teacher, batch_of(labels=labels, views={"strong": View(torch.zeros(0), labels)}))
    parts = {
        "kd": terms["instances"] + terms["strong_instances"],
        "cc": terms["classes"],
        "bc": terms["batch"],
        "ce": F.cross_entropy(student.logits, labels) + terms["strong_cross_entropy"],
    }
    both_views(golden, {**parts, "": parts["kd"] + parts["cc"] + parts["bc"]}, ("", "ce"))


@case("crld")
def _crld(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    labels = golden.tensors["target"]
    views = {"strong": View(torch.zeros(0), labels)}
    terms = method("crld", pair_of(student, teacher)).losses(student, teacher, batch_of(labels=labels, views=views))
    within, across = terms["within_views"], terms["cross_views"]
    both_views(golden, {"wv": within / 2, "cv": across / 0.5, "": within + across}, ("wv", "cv", ""))
    golden.agrees("loss.ce", F.cross_entropy(student.logits, labels) + terms["strong_cross_entropy"])
