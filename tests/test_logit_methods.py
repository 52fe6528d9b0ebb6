"""Methods that read logits alone, by hand: what their golden numbers do not see, and what leaves nothing of them."""

from typing import Any

import pytest
import torch
from test_method_traps import batch, build, built_for, outputs
from torch import Tensor

from kdbench import Losses, PairError, masked_log_softmax

STUDENT, TEACHER = outputs(6), outputs(6, seed=1)
LABELS = torch.arange(6) % 5


def losses(name: str, epoch: int = 1000, **params: object) -> Losses:
    found: Losses = build(name, STUDENT, TEACHER, **params).losses(STUDENT, TEACHER, batch(6, epoch=epoch))
    return found


def total(name: str, epoch: int = 1000, **params: object) -> Tensor:
    return torch.stack(list(losses(name, epoch, **params).values())).sum()


@pytest.mark.parametrize("name", ["nkd", "ttm"])
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(PairError, match="at least 2 classes, and the data set has 1"):
        built_for(name, classes=1)


NOTES: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    # a method, what the training is like, the note, and the weights of what is left
    ("nkd", {"classes": 2}, "the non-target term is 0", ()),
]


@pytest.mark.parametrize(("name", "training", "note", "weights"), NOTES)
def test_a_term_that_teaches_nothing_is_noted_and_none_of_its_weights_advised(
    name: str, training: dict[str, Any], note: str, weights: tuple[str, ...]
) -> None:
    method = built_for(name, **training)
    assert [found for found in method.notes if note in found]
    assert method.weights == weights
    assert not built_for(name).notes


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
