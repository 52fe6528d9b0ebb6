"""Methods that read maps and pooled vectors, since 2020."""

from dataclasses import replace

from golden_numbers import Golden, batch_of, case, method, pair_of, total
from torch import Tensor, nn

from kdbench import Outputs


def weights(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": parameter for key, parameter in module.named_parameters()}


@case("srrl")
def _srrl(golden: Golden) -> None:
    teacher = golden.outputs("teacher")
    srrl_with(golden, "Connectors", replace(teacher, pooled=teacher.features[-1].mean(dim=(2, 3))), form="maps")


@case("srrl_pooled")
def _srrl_pooled(golden: Golden) -> None:
    srrl_with(golden, "transfer", golden.outputs("teacher"), form="pooled")


def srrl_with(golden: Golden, prefix: str, teacher: Outputs, form: str) -> None:
    student = golden.outputs("student")
    parts = {f"classifier_{kind}": golden.tensors[f"teacher.classifier.{kind}"] for kind in ("weight", "bias")}
    srrl = method("srrl", pair_of(student, teacher, **parts), form=form)
    golden.load(weights(prefix, srrl.connector))
    terms = srrl.losses(student, teacher, batch_of())
    golden.agrees("loss.feature", terms["feature"])
    golden.agrees("loss.logits", terms["logits"])
    golden.agrees("loss", total(terms))
    golden.gradients_agree(total(terms))


@case("itrd", "itrd_equal")
def _itrd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    for alpha, suffix in ((1.5, ".alpha1_5"), (1.01, "")):
        itrd = method("itrd", pair_of(student, teacher), alpha=alpha)
        golden.load(weights("embed.linear", itrd.embed))
        terms = itrd.losses(student, teacher, batch_of())
        golden.agrees(f"loss.correlation{suffix}", terms["correlation"] / 2)
    golden.agrees("loss.mutual", terms["mutual"])
    golden.agrees("loss", total(terms))
    golden.gradients_agree(total(terms))


@case("pefd")
def _pefd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    pefd = method("pefd", pair_of(student, teacher), beta=1)
    for i, projector in enumerate(pefd.projectors, start=1):
        golden.load(weights(f"regress_s{i}.linear", projector))
    loss = total(pefd.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("rsd")
def _rsd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    rsd = method("rsd", pair_of(student, teacher), beta=1)
    golden.load(weights("projector", rsd.projector))
    loss = total(rsd.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("ickd")
def _ickd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ickd = method("ickd", pair_of(student, teacher), beta=1)
    conv, norm = ickd.embed
    golden.load(weights("embed_s.conv2d", conv) | weights("embed_s.l2norm", norm))
    loss = total(ickd.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)


@case("mgd", "mgd_equal")
def _mgd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    mgd = method("mgd", pair_of(student, teacher), beta=1)
    golden.load(weights("align", mgd.align) | weights("generation", mgd.generation))
    loss = mgd.distance(student.features[-1], teacher.features[-1], golden.tensors["mask.uniform"].flatten(1))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
