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
    golden.loss_agrees(total(terms))


@case("itrd", "itrd_equal")
def _itrd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    for alpha, suffix in ((1.5, ".alpha1_5"), (1.01, "")):
        itrd = method("itrd", pair_of(student, teacher), alpha=alpha)
        golden.load(weights("embed.linear", itrd.embed))
        terms = itrd.losses(student, teacher, batch_of())
        golden.agrees(f"loss.correlation{suffix}", terms["correlation"] / 2)
    golden.agrees("loss.mutual", terms["mutual"])
    golden.loss_agrees(total(terms))


@case("pefd")
def _pefd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    pefd = method("pefd", pair_of(student, teacher), beta=1)
    for i, projector in enumerate(pefd.projectors, start=1):
        golden.load(weights(f"regress_s{i}.linear", projector))
    golden.loss_agrees(total(pefd.losses(student, teacher, batch_of())))


@case("rsd")
def _rsd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    rsd = method("rsd", pair_of(student, teacher), beta=1)
    golden.load(weights("projector", rsd.projector))
    golden.loss_agrees(total(rsd.losses(student, teacher, batch_of())))


@case("ickd")
def _ickd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ickd = method("ickd", pair_of(student, teacher), beta=1)
    conv, norm = ickd.embed
    golden.load(weights("embed_s.conv2d", conv) | weights("embed_s.l2norm", norm))
    golden.loss_agrees(total(ickd.losses(student, teacher, batch_of())))


@case("mgd", "mgd_equal")
def _mgd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    mgd = method("mgd", pair_of(student, teacher), beta=1)
    golden.load(weights("align", mgd.align) | weights("generation", mgd.generation))
    golden.loss_agrees(mgd.distance(student.features[-1], teacher.features[-1], golden.tensors["mask.uniform"].flatten(1)))


@case("semckd")
def _semckd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    semckd = method("semckd", replace(pair_of(student, teacher), largest_batch=8), beta=1)
    for kind, embeddings in (("query", semckd.queries), ("key", semckd.keys)):
        for i, (first, _, second) in enumerate(embeddings):
            golden.load(weights(f"{kind}_weight{i}.linear1", first) | weights(f"{kind}_weight{i}.linear2", second))
    for number, regressor in enumerate(semckd.regressors):
        golden.load(weights(f"regressor{number // 3}{number % 3}.regressor", regressor))
    golden.agrees("attention", semckd.attention(student.features, teacher.features))
    golden.loss_agrees(total(semckd.losses(student, teacher, batch_of())))


@case("wkd_f")
def _wkd_f(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    before = batch_of(epoch=0)
    for grid in (2, 1):
        wkd = method("wkd_f", pair_of(student, teacher), beta=1, rho=4, grid=grid)
        conv, norm, _ = wkd.projector
        golden.load(weights("conv_reg.conv", conv) | weights("conv_reg.bn", norm))
        terms = wkd.losses(student, teacher, before)
        golden.loss_agrees(total(terms), "" if grid == 1 else ".grid2")
    golden.agrees("loss.mean", terms["mean"] / 4)
    golden.agrees("loss.cov", terms["spread"])


@case("wkd_l")
def _wkd_l(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    rows = golden.tensors["teacher.classifier.weight"]
    wkd = method("wkd_l", pair_of(student, teacher, classifier_weight=rows))
    terms = wkd.losses(student, teacher, batch_of(labels=golden.tensors["target"], epoch=0))
    golden.agrees("loss.target", terms["target"])
    golden.agrees("loss.wd", terms["others"] / 600)
    golden.loss_agrees(total(terms))


@case("afd")
def _afd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    afd = method("afd", pair_of(student, teacher), beta=1, dimensions=int(golden.metadata["dimensions"]))
    layers = {"s.bilinear": afd.bilinear}
    layers |= {f"s.key_layer.{i}": layer for i, layer in enumerate(afd.keys)}
    layers |= {f"t.query_layer.{i}": layer for i, layer in enumerate(afd.queries)}
    for name, (linear, norm, *_) in layers.items():
        prefix = f"attention.linear_trans_{name}"
        golden.load(weights(f"{prefix}.linear", linear) | weights(f"{prefix}.bn", norm))
    golden.load({"attention.p_s": afd.place_s, "attention.p_t": afd.place_t})
    golden.agrees("attention", afd.attention(student.features, teacher.features))
    golden.loss_agrees(total(afd.losses(student, teacher, batch_of())))


@case("irg", "irg_equal")
def _irg(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    golden.loss_agrees(total(method("irg", pair_of(student, teacher), beta=1).losses(student, teacher, batch_of())))
