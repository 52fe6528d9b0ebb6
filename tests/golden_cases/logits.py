"""Methods since 2021 that read logits alone."""

from golden_numbers import Golden, batch_of, case, method, pair_of, total


def variants(name: str, golden: Golden, settings: dict[str, dict[str, object]]) -> None:
    """Compare a method of logits with one file; `settings` holds the parameters of each variant, by its suffix in the file."""
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    batch = batch_of(labels=golden.tensors["target"]) if "target" in golden.tensors else batch_of()
    for suffix, params in settings.items():
        loss = total(method(name, pair_of(student, teacher), **params).losses(student, teacher, batch))
        golden.agrees(f"loss{suffix}", loss)
        golden.gradients_agree(loss, {f"grad.student.logits{suffix}": "student.logits"})


@case("nkd")
def _nkd(golden: Golden) -> None:
    variants("nkd", golden, {"": {"gamma": 1.5, "temperature": 1}, ".T3": {"gamma": 3.5, "temperature": 3}})


@case("ttm")
def _ttm(golden: Golden) -> None:
    variants("ttm", golden, {"": {"beta": 1, "gamma": 0.1}})


@case("ttm_weighted")  # wttm.py of the authors
def _ttm_weighted(golden: Golden) -> None:
    variants("ttm", golden, {"": {"beta": 1, "gamma": 0.1, "weighted": True}})
