"""Methods without a teacher, by hand: none of them has golden numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_method_traps import CLASSES, batch, build, outputs

from kdbench.training.recorded_batch import RecordedBatch

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


def test_byot_teaches_each_shallower_group_by_the_deepest():
    method = build("byot", STUDENT, TEACHER, alpha=0.3, beta=0.01, temperature=3)
    assert len(method.bottlenecks) == 2
    assert [head[3].kernel_size for head in method.bottlenecks] == [(4, 4), (2, 2)]
    found = total(method)
    target, soft = STUDENT.features[-1].mean((2, 3)), (LOGITS / 3).softmax(1)
    expected = 0.7 * F.cross_entropy(LOGITS, LABELS)
    for head, classifier, maps in zip(method.bottlenecks, method.classifiers, STUDENT.features[:-1], strict=True):
        vectors = head(maps).mean((2, 3))
        answers = classifier(vectors)
        mask = (vectors > 0) | (target > 0)
        expected += 0.7 * F.cross_entropy(answers, LABELS) - 0.3 * 9 * (soft * (answers / 3).log_softmax(1)).sum() / 6
        expected += 0.01 * ((vectors - target)[mask] ** 2).sum()
    torch.testing.assert_close(found, expected)


def test_ffl_fuses_two_networks_and_every_target_is_detached():
    student = outputs(4)
    student.logits.requires_grad_()
    student.features[-1].requires_grad_()
    ffl = build("ffl", student, TEACHER, peer="resnet8", beta=2, temperature=3)
    given = batch(4, epoch=20, images=torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    terms = ffl.losses(student, student, given)
    peer = ffl.peer(given.images)
    fused = ffl.fusion(student.features[-1], peer.features[-1])

    def divergence(logits, target):
        q_t, q = (target / 3).softmax(1), (logits / 3).softmax(1)
        return 2 * math.exp(-5 * 0.75**2) * 9 * (q_t * (q_t / q).log()).sum(1).mean()

    torch.testing.assert_close(terms["divergence"], divergence(student.logits, fused))
    torch.testing.assert_close(terms["peer_divergence"], divergence(peer.logits, fused))
    torch.testing.assert_close(terms["fusion_divergence"], divergence(fused, (student.logits + peer.logits) / 2))
    torch.testing.assert_close(terms["fusion_cross_entropy"], F.cross_entropy(fused, given.labels))
    leaves = [student.logits, student.features[-1], ffl.peer.classifier.weight, ffl.fusion.classifier.weight]

    def reached(term):
        found = torch.autograd.grad(terms[term], leaves, allow_unused=True, retain_graph=True)
        return tuple(gradient is not None for gradient in found)

    assert {term: reached(term) for term in terms} == {
        "peer_cross_entropy": (False, False, True, False),
        "fusion_cross_entropy": (False, True, False, True),
        "divergence": (True, False, False, False),
        "peer_divergence": (False, False, True, False),
        "fusion_divergence": (False, True, False, True),
    }
    (group,) = ffl.parameter_groups()
    assert group.module is ffl.fusion and group.weight_decay == 1e-5


@pytest.mark.parametrize(("epoch", "weight"), [(0, math.exp(-5)), (40, math.exp(-1.25)), (80, 1), (200, 1)])
def test_the_divergences_of_ffl_ramp_up(epoch, weight):
    terms, full = (
        build("ffl", STUDENT, TEACHER, peer="resnet8").losses(STUDENT, TEACHER, batch(6, epoch=at)) for at in (epoch, 1000)
    )
    torch.testing.assert_close(terms["divergence"], weight * full["divergence"])


def test_ffls_ramp_asks_for_no_epoch_so_that_one_cuda_graph_serves_all():
    student, recorded = outputs(8), RecordedBatch(batch(8))
    method = build("ffl", student, student)
    terms = method.losses(student, student, recorded)
    assert not recorded.asked_for_epoch
    assert method.weight(0) == pytest.approx(math.exp(-5)) and method.weight(80) == method.weight(90) == 1
    assert terms["fusion_divergence"].item() > 0
