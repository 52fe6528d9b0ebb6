"""Methods that read a live classifier, a survey or rotated images."""

from dataclasses import replace

from golden_numbers import Golden, batch_of, case, method, pair_of, total


@case("catkd")
def _catkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    student, teacher = (replace(point, pooled=point.features[-1].mean((2, 3))) for point in (student, teacher))
    for normalise, suffix in ((True, ""), (False, ".raw")):
        loss = total(method("catkd", pair_of(student, teacher), beta=1, normalise=normalise).losses(student, teacher, batch_of()))
        golden.agrees(f"loss{suffix}", loss)
        golden.gradients_agree(loss, {f"grad.{leaf}{suffix}": leaf for leaf in golden.leaves})


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
        loss = total(sdd.losses(student, teacher, batch_of(labels=golden.tensors["target"])))
        golden.agrees(f"loss{suffix}", loss)
        golden.gradients_agree(loss, {f"grad.{leaf}{suffix}": leaf for leaf in golden.leaves})


@case("kdpp")
def _kdpp(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    kdpp = method("kdpp", pair_of(student, teacher), nd_weight=1, kd_weight=0)
    kdpp.class_means.means.copy_(golden.tensors["centers"])
    loss = total(kdpp.losses(student, teacher, batch_of(labels=golden.tensors["target"])))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
