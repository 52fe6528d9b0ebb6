"""Methods that read logits alone, by hand: what their golden numbers do not see, and what leaves nothing of them."""

from dataclasses import replace

import pytest
import torch
from test_method_traps import batch, build, built_for, outputs
from torch import Tensor

from kdbench import Losses, PairError, View, masked_log_softmax
from kdbench.method.specs import resolve_methods

STUDENT, TEACHER = outputs(6), outputs(6, seed=1)
LABELS = torch.arange(6) % 5


def losses(name: str, epoch: int = 1000, **params: object) -> Losses:
    found: Losses = build(name, STUDENT, TEACHER, **params).losses(STUDENT, TEACHER, batch(6, epoch=epoch))
    return found


def total(name: str, epoch: int = 1000, **params: object) -> Tensor:
    return torch.stack(list(losses(name, epoch, **params).values())).sum()


@pytest.mark.parametrize(
    ("name", "authors"),
    [
        ("ctkd", {"kd_weight": 9}),
        ("mlkd", {"kd_weight": 9}),
        ("mlkd_noaug", {"kd_weight": 9}),
        ("dkd", {"alpha": 9, "beta": 72}),
    ],
)
def test_weights_of_plain_logits_are_noted_where_logits_are_standardised(name: str, authors: dict[str, float]) -> None:
    (note,) = built_for(name, standardized=True).notes
    assert note.startswith(f"{next(iter(authors))} is that of plain logits; the authors' standardised runs have ")
    assert not built_for(name, standardized=True, **authors).notes


def test_a_masked_softmax_is_the_softmax_of_what_is_kept_and_passes_no_gradient_to_the_rest() -> None:
    logits = torch.tensor([[1.0, 3e4, -2.0], [5.0, 6.0, 7.0]], requires_grad=True)
    kept = torch.tensor([[True, False, True], [False, False, False]])
    found = masked_log_softmax(logits, kept)
    expected = logits.detach()[0, [0, 2]].log_softmax(0)
    torch.testing.assert_close(found, torch.tensor([[expected[0], 0, expected[1]], [0, 0, 0]]))
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), logits)
    p = expected.exp()
    torch.testing.assert_close(gradient, torch.tensor([[1 - p[0], 0, -p[1]], [0, 0, 0]]))


def test_the_target_term_of_nkd_has_no_weight_and_no_temperature() -> None:
    p_t, log_s = TEACHER.logits.softmax(1), STUDENT.logits.log_softmax(1)
    expected = -(p_t * log_s)[torch.arange(6), LABELS].mean()
    torch.testing.assert_close(losses("nkd", gamma=9, temperature=7)["target"], expected)


def test_ttm_softens_the_teacher_alone_and_wttm_weighs_images_of_which_it_is_unsure_more() -> None:
    power = TEACHER.logits.softmax(1) ** 0.25
    q = power / power.sum(1, keepdim=True)
    divergences = (q * (q.log() - STUDENT.logits.log_softmax(1))).sum(1)
    torch.testing.assert_close(total("ttm", gamma=0.25, beta=3), 3 * divergences.mean())
    torch.testing.assert_close(total("ttm", gamma=0.25, beta=3, weighted=True), 3 * (power.sum(1) * divergences).mean())


@pytest.mark.parametrize(("epoch", "reversal"), [(0, -0.0244717), (4, -0.5), (9, -1), (200, -1)])
def test_the_temperature_of_ctkd_climbs_the_loss_more_and_more_for_ten_epochs(epoch: int, reversal: float) -> None:
    student, teacher = (replace(out, logits=out.logits.double()) for out in (STUDENT, TEACHER))
    ctkd = build("ctkd", student, teacher).double()
    sigmoid = torch.sigmoid(ctkd.t.detach())
    tau = (1 + 20 * sigmoid).requires_grad_()
    q_s, q_t = (student.logits / tau).softmax(1), (teacher.logits / tau).softmax(1)
    loss = 0.9 * tau**2 * (q_t * (q_t / q_s).log()).sum(1).mean()
    (value,) = ctkd.losses(student, teacher, batch(6, epoch=epoch)).values()
    torch.testing.assert_close(value, loss)
    slopes = [torch.autograd.grad(*pair)[0] for pair in ((value, ctkd.t), (loss, tau))]
    torch.testing.assert_close(slopes[0], reversal * slopes[1] * 20 * sigmoid * (1 - sigmoid), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("epoch", "weight"), [(0, 1 / 20), (1, 2 / 20), (19, 1), (20, 1)])
def test_the_warm_up_of_rld_counts_epochs_from_1(epoch: int, weight: float) -> None:
    torch.testing.assert_close(total("rld", epoch), weight * total("rld"))
    torch.testing.assert_close(total("rld", 0, warm_up_epochs=0), total("rld"))


def test_rld_never_teaches_a_class_that_the_teacher_ranks_above_the_label() -> None:
    """Where its first choice is wrong, the student's label is to be as likely as that choice."""
    student, teacher = outputs(1), replace(outputs(1), logits=torch.tensor([[2.0, 3.0, 1.0, 0.0, 5.0]]))
    student.logits.requires_grad_()
    rld = build("rld", student, teacher, beta=1, alpha=1)
    found = rld.losses(student, teacher, batch(1, epoch=1000))  # its label is 0: classes 2 and 3 are below it
    (gradient,) = torch.autograd.grad(found["masked_correlation"], student.logits)
    assert gradient[0, [0, 1, 4]].eq(0).all() and gradient[0, [2, 3]].ne(0).all()
    b_t, b_s = (torch.stack((p, 1 - p)) for p in (teacher.logits.softmax(1).max(), student.logits.detach().softmax(1)[0, 0]))
    torch.testing.assert_close(found["confidence"].detach(), (b_t * (b_t / b_s).log()).sum())


def test_the_weights_of_wsld_and_eakd_pass_no_gradient() -> None:
    student = outputs(6)
    student.logits.requires_grad_()
    p_s, p_t = student.logits.softmax(1), TEACHER.logits.softmax(1)
    ce_s, ce_t = (-p[torch.arange(6), LABELS].log() for p in (p_s, p_t))
    log_s, q_t = (student.logits / 4).log_softmax(1), (TEACHER.logits / 4).softmax(1)
    weights = 1 - torch.exp(-ce_s / ce_t)
    expected = {"wsld": 2.25 * 16 * (weights.detach() * -(q_t * log_s).sum(1)).mean()}
    h_s, h_t = (-(p * p.log()).sum(1) for p in ((student.logits / 3).softmax(1), (TEACHER.logits / 3).softmax(1)))
    divergences = 16 * (q_t * (q_t.log() - log_s)).sum(1)
    expected["eakd"] = 0.9 * (((h_t + h_t * h_s / 100) / 2).detach() * divergences).mean()
    for name, loss in expected.items():
        (found,) = build(name, student, TEACHER).losses(student, TEACHER, batch(6)).values()
        torch.testing.assert_close(found, loss)
        torch.testing.assert_close(*(torch.autograd.grad(value, student.logits, retain_graph=True) for value in (found, loss)))


def test_normkd_is_kd_on_standardised_logits_weighed_by_the_teachers_variance() -> None:
    z_s, z_t = ((out.logits - out.logits.mean(1, keepdim=True)) / out.logits.std(1, keepdim=True) for out in (STUDENT, TEACHER))
    q_s, q_t = (z_s / 3).softmax(1), (z_t / 3).softmax(1)
    expected = (TEACHER.logits.var(1) * 9 * (q_t * (q_t / q_s).log()).sum(1)).mean()
    torch.testing.assert_close(total("normkd", temperature=3, kd_weight=1), expected)


def test_a_trial_of_dkd_without_standardised_logits_is_the_trial_that_it_was() -> None:
    (plain,) = resolve_methods("dkd", {})
    assert plain.params == {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "warm_up_epochs": 20}
    assert plain == resolve_methods("dkd", {"dkd": {"standardized": False}})[0]
    (standardized,) = resolve_methods("dkd", {"dkd": {"standardized": True}})
    assert standardized.params == {**plain.params, "standardized": True}


def test_skd_refuses_batches_of_one_image() -> None:
    with pytest.raises(PairError, match="at least 2 images in every batch"):
        built_for("skd", batches=(1, 1))


def test_mlkd_without_augmentation_is_what_mlkd_makes_of_the_usual_view() -> None:
    usual, both = losses("mlkd_noaug"), losses("mlkd")
    assert {name: both[name] for name in usual} == usual and list(both)[3:] == ["strong_instances", "strong_cross_entropy"]
    assert losses("mlkd", kd_weight=0).keys() == both.keys()


@pytest.mark.parametrize("name", ["crld", "mlkd"])
def test_the_cross_entropy_of_the_strong_view_has_the_weight_of_the_usual_ones(name: str) -> None:
    """Each of its images has its own label."""
    labels = torch.tensor([4, 0, 1, 1, 2, 3])
    given = batch(6)
    method = build(name, STUDENT, TEACHER, ce_weight=0.3)
    found = method.losses(STUDENT, TEACHER, replace(given, views={"strong": View(given.images, labels)}))
    expected = -STUDENT.views["strong"].logits.log_softmax(1)[torch.arange(6), labels].mean()
    torch.testing.assert_close(found["strong_cross_entropy"], 0.3 * expected)
    assert method.ce_weight == 0.3


def test_crld_learns_nothing_from_images_of_which_the_teacher_is_unsure() -> None:
    sure, unsure = ({"weak_confidence": bound, "strong_confidence": bound} for bound in (0, 1))
    assert all(losses("crld", **sure)[term] > 0 and losses("crld", **unsure)[term] == 0 for term in ("within_views", "cross_views"))
    weak = TEACHER.logits.softmax(1).amax(1).sort().values
    half = losses("crld", weak_confidence=float(weak[3]))["within_views"]
    assert 0 < half < losses("crld", **sure)["within_views"]
