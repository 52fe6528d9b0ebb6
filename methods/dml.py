from pydantic import NonNegativeFloat
from torch import Tensor

from kdbench import (
    Batch,
    KdbenchError,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    PairError,
    build_model,
    kd_divergence,
    register,
)


@register("dml")
class DML(Method):
    r"""CE(z_s, y) + beta KL(p || s) + [CE(z_p, y) + beta KL(s || p)],  s = softmax(z_s), p = softmax(z_p)

    z_p are the logits of a peer that learns beside the student from its first step; the term in brackets trains the peer alone
    and the other divergence the student alone. No teacher is read. `peer` is a registered model; for the paper's pairs of unequal
    networks name the teacher's.

    Transfers: probabilities of a peer (logits)
    Paper: Zhang et al., "Deep mutual learning", CVPR 2018, arXiv:1706.00384.
    Code: https://github.com/YingZhangDUT/Deep-Mutual-Learning, for person re-identification: with Adam, and 1e-8 in the logarithms.
    Deviations: one peer. Both networks step from the same two forward passes; in the paper's algorithm the second one predicts
    anew after the first has stepped, and in the authors' code on another batch, too. The peer has the student's recipe; on
    CIFAR-100 the paper has Nesterov momentum for all networks.
    """

    min_classes = 2

    class Params(MethodParams):
        peer: str = "resnet20"
        beta: NonNegativeFloat = 1.0

    params: Params

    def build(self, pair: Pair) -> None:
        num_classes, in_channels = pair.student.logits[0], pair.image_shape[0]
        try:
            self.peer = build_model(self.params.peer, num_classes=num_classes, in_channels=in_channels)
        except KdbenchError as problem:
            raise PairError(f"peer: {problem}") from None

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        peer: Tensor = self.peer(batch.images).logits
        return {
            "divergence": self.params.beta * kd_divergence(student.logits, peer.detach(), 1.0),
            "peer_cross_entropy": batch.cross_entropy(peer),
            "peer_divergence": self.params.beta * kd_divergence(peer, student.logits.detach(), 1.0),
        }
