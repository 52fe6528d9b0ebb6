import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, full_precision, register


@register("dist")
class DIST(Method):
    r"""CE(z_s, y) + tau^2 (beta (1 - mean_i rho(P_s[i, :], P_t[i, :])) + gamma (1 - mean_k rho(P_s[:, k], P_t[:, k])))

    P = softmax(z / tau) of a batch, one row per sample and one column per class; rho is Pearson's correlation.

    Transfers: correlations of predicted probabilities (logits)
    Paper: Huang et al., "Knowledge distillation from a stronger teacher", NeurIPS 2022, arXiv:2205.10536.
    Code: https://github.com/hunto/DIST_KD
    Deviations: constant rows and columns of P pass no gradient; the authors' is of the order of 1e8 there. The defaults are those
    of CIFAR-100; on ImageNet tau is 1.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("beta", "gamma")
    min_classes = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 2.0
        gamma: NonNegativeFloat = 2.0
        tau: PositiveFloat = 4.0

    params: Params

    def build(self, pair: Pair) -> None:
        lengths = {"beta": pair.student.logits[0], "gamma": pair.largest_batch}
        self.weights = tuple(weight for weight, length in lengths.items() if length > 2)
        if not self.weights:
            raise PairError("it needs 3 classes, or batches of 3 images, since two numbers always correlate; choose another method")
        if "beta" not in self.weights:
            self.notes.append("with two classes a sample's correlation is 1 or -1, and the inter-class term teaches nothing")
        if "gamma" not in self.weights:
            self.notes.append("in batches of two a class's correlation is 1 or -1, and the intra-class term teaches nothing")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        p_s, p_t = (probabilities(outputs.logits, self.params.tau) for outputs in (student, teacher))
        scale = self.params.tau**2
        return {
            "inter_class": scale * self.params.beta * (1 - correlation(p_s, p_t).mean()),
            "intra_class": scale * self.params.gamma * (1 - correlation(p_s.T, p_t.T).mean()),
        }


@full_precision
def probabilities(logits: Tensor, tau: float) -> Tensor:
    """(B, K), rows that sum to 1."""
    return torch.softmax(logits / tau, dim=1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the rows of `a` and `b` (M, N), (M,), with the authors' 1e-8 against constant rows."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm_a, norm_b = (torch.linalg.vector_norm(rows, dim=1) for rows in (a, b))
    varies = torch.minimum(norm_a, norm_b) > 1e-6
    correlations: Tensor = (a * b).sum(1) / (norm_a * norm_b + 1e-8) * varies
    return correlations
