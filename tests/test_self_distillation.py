"""Methods without a teacher, by hand: none of them has golden numbers."""

import pytest
import torch
import torch.nn.functional as F
from test_method_traps import CLASSES, batch, build, outputs

STUDENT, TEACHER = outputs(6), outputs(6, seed=1)
LOGITS, LABELS = STUDENT.logits, batch(6).labels


def total(method, given=None):
    """The whole loss, with the cross-entropy."""
    given = given or batch(6)
    terms = method.losses(STUDENT, TEACHER, given)
    return sum(terms.values()) + method.ce_weight * F.cross_entropy(LOGITS, given.labels)


def test_label_smoothing_is_torchs():
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.3)
    torch.testing.assert_close(total(build("label_smoothing", STUDENT, TEACHER, alpha=0.3)), expected)


def test_the_virtual_teacher_is_softened_once_more_and_averaged_over_all_numbers():
    virtual = torch.full((6, CLASSES), 0.01 / (CLASSES - 1))
    virtual[range(6), LABELS] = 0.99
    q, p = (virtual / 3).softmax(1), LOGITS.softmax(1)
    expected = 0.6 * F.cross_entropy(LOGITS, LABELS) + 0.4 * 7 * (q * (q / p).log()).sum() / (6 * CLASSES)
    found = total(build("tfkd_reg", STUDENT, TEACHER, alpha=0.4, temperature=3, multiplier=7))
    torch.testing.assert_close(found, expected)


def test_pskd_learns_from_the_label_first_and_then_from_what_it_said_of_the_image():
    method = build("pskd", STUDENT, TEACHER, alpha=0.8)
    where = torch.tensor([30, 1, 22, 13, 4, 5])
    first = batch(6, epoch=0, epochs=10, indices=where, labels=where % CLASSES)
    torch.testing.assert_close(total(method, first), F.cross_entropy(LOGITS, first.labels))
    torch.testing.assert_close(method.predictions[where], LOGITS.softmax(1))
    untouched = torch.tensor([index for index in range(40) if index not in where])
    assert torch.equal(method.predictions[untouched], F.one_hot(untouched % CLASSES, CLASSES).float())
    share = 0.8 * 4 / 10
    soft = (1 - share) * F.one_hot(first.labels, CLASSES) + share * LOGITS.softmax(1)
    later = batch(6, epoch=3, epochs=10, indices=where, labels=first.labels)
    torch.testing.assert_close(total(method, later), F.cross_entropy(LOGITS, soft))
    assert method.ce_weight == pytest.approx(1 - share)
