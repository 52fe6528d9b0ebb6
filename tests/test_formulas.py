"""What golden numbers leave out, by hand: weights of the cross-entropy, stages, and losses that no reference file holds."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_method_traps import CLASSES, batch, build, outputs, pair
from torch import Tensor

from kdbench import Outputs, PairError, pool_to
from kdbench.docs.methods import shipped_methods
from kdbench.method.composition import Composition
from kdbench.method.draws import uniform_integers
from kdbench.method.interface import METHODS

STUDENT, TEACHER = outputs(6), outputs(6, seed=1)


def divergence(temperature: float) -> Tensor:
    """KL(softmax(z_t / T) || softmax(z_s / T)), mean over the batch, without T^2."""
    p_s, p_t = (F.softmax(out.logits / temperature, 1) for out in (STUDENT, TEACHER))
    return (p_t * (p_t.log() - p_s.log())).sum(1).mean()


def stage(method: Any, name: str) -> Any:
    (found,) = (found for found in method.stages() if found.name == name)
    return found.losses


def only(losses: Any) -> Tensor:
    (value,) = losses.values()
    return value


CE_WEIGHTS = {
    # parameters, and the weight of the cross-entropy that the formula in the docstring gives them
    "kd": ({"alpha": 0.7}, 0.3),
    "fitnets": ({"alpha": 0.7}, 0.3),
    "kd_standardized": ({"ce_weight": 0.4}, 0.4),
    "ab": ({"ce_weight": 0.6}, 0.6),
    "norm": ({"ce_weight": 0.3}, 0.3),
    "simkd": ({}, 0.0),
    "dgkd": ({"alpha": 0.6}, 0.4),
    "sdd": ({"ce_weight": 0.4}, 0.4),
    "label_smoothing": ({"alpha": 0.3}, 0.7),
    "byot": ({"alpha": 0.3}, 0.7),
    "sskd": ({"ce_weight": 0.4}, 0.4),
    "tfkd_reg": ({"alpha": 0.3}, 0.7),
    **{name: ({"ce_weight": 0.4}, 0.4) for name in ("crld", "ctkd", "eakd", "mlkd", "mlkd_noaug", "normkd", "skd")},
}


@pytest.mark.parametrize(
    "name", sorted(method for method in shipped_methods() if method not in ("fsp", "deit"))
)  # they need other shapes
def test_the_weight_of_the_cross_entropy(name: str) -> None:
    params, weight = CE_WEIGHTS.get(name, ({}, 1.0))
    assert build(name, STUDENT, TEACHER, **params).ce_weight == pytest.approx(weight)


def test_a_composition_has_the_product_of_the_weights() -> None:
    parts = {name: build(name, STUDENT, TEACHER, **CE_WEIGHTS[name][0]) for name in ("kd", "ab")}
    assert Composition(parts).ce_weight == pytest.approx(0.3 * 0.6)


def test_kd_and_the_second_stage_of_fitnets() -> None:
    for name in ("kd", "fitnets"):
        method = build(name, STUDENT, TEACHER, alpha=0.7, temperature=3)
        assert torch.allclose(only(method.losses(STUDENT, TEACHER, batch(6))), 0.7 * 9 * divergence(3))


def test_the_hint_of_fitnets_is_a_mean_of_squares() -> None:
    method = build("fitnets", STUDENT, TEACHER)
    expected = (method.regressor(STUDENT.features[1]) - TEACHER.features[1]).square().mean()
    assert torch.allclose(only(stage(method, "hint")(STUDENT, TEACHER, batch(6))), expected)


def test_the_second_stage_of_ab_has_no_factor_of_the_temperature() -> None:
    method = build("ab", STUDENT, TEACHER, kd_weight=2, temperature=3)
    assert torch.allclose(only(method.losses(STUDENT, TEACHER, batch(6))), 2 * divergence(3))


def test_the_reconstruction_of_ft_by_squares() -> None:
    method = build("ft", STUDENT, TEACHER, reconstruction="mse")
    maps = TEACHER.features[-1]
    expected = (method.decoder(method.encoder(maps)) - maps).square().mean()
    assert torch.allclose(only(stage(method, "paraphraser")(STUDENT, TEACHER, batch(6))), expected)


def test_simkd_compares_maps_by_squares() -> None:
    method = build("simkd", STUDENT, TEACHER, beta=3).eval()  # the projector's batch norms give the same twice
    expected = 3 * (method.projector(STUDENT.features[-1]) - TEACHER.features[-1]).square().mean()
    assert torch.allclose(only(method.losses(STUDENT, TEACHER, batch(6))), expected)


def test_vid_begins_with_a_variance_of_five() -> None:
    method = build("vid", STUDENT, TEACHER)
    for gaussian in method.gaussians:
        assert torch.allclose(F.softplus(gaussian.log_scale) + 1e-5, torch.tensor(5.0))


def split_mix(seed: int, count: int) -> list[int]:
    """As https://prng.di.unimi.it/splitmix64.c has it."""
    found = []
    for number in range(1, count + 1):
        z = (seed + number * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


@pytest.mark.parametrize("seed", [0, 1234567, 2**62 - 1])
def test_many_random_integers_are_upper_halves_of_splitmix64(seed: int) -> None:
    assert split_mix(0, 1) == [0xE220A8397B1DCDAF]  # as published
    assert uniform_integers(torch.tensor(seed), (50, 2)).flatten().tolist() == [z >> 33 for z in split_mix(seed, 100)]


def test_the_banks_of_crd_begin_uniform_within_their_bound() -> None:
    method = build("crd", STUDENT, TEACHER)
    for bank in (method.bank_student.vectors, method.bank_teacher.vectors):
        bound = 1 / math.sqrt(bank.shape[1] / 3)
        assert bank.abs().max() <= bound
        assert bank.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_dgkd_sums_the_divergences_of_the_teachers_that_it_keeps() -> None:
    teachers = [outputs(6, seed=seed) for seed in (1, 2, 3)]
    first = replace(teachers[0], others=tuple(teachers[1:]))
    of_pair = replace(pair(STUDENT, first), others=(first.shapes(),) * 2)

    def built(**params: Any) -> Any:
        return METHODS.get("dgkd")(METHODS.get("dgkd").Params(**params), of_pair)

    def from_teacher(teacher: Outputs) -> Tensor:
        p_s, p_t = (F.softmax(out.logits / 3, 1) for out in (STUDENT, teacher))
        return 0.8 * 9 * (p_t * (p_t.log() - p_s.log())).mean()  # over images and classes

    each = torch.stack([from_teacher(teacher) for teacher in teachers])
    every = built(temperature=3, alpha=0.8, dropped=0).losses(STUDENT, first, batch(6))
    torch.testing.assert_close(only(every), each.sum())
    draws, method = torch.Generator().manual_seed(0), built(temperature=3, alpha=0.8)
    some = torch.stack([only(method.losses(STUDENT, first, batch(6, generator=draws))) for _ in range(40)])
    apart = (some[:, None] - (each.sum() - each)).abs()  # from the sums that lack one
    assert apart.min(1).values.max() < 1e-6
    assert {*apart.argmin(1).tolist()} == {0, 1, 2}, "each is dropped at some time"
    with pytest.raises(PairError, match="3 of 3 teachers leave none"):
        built(dropped=3)
    assert build("dgkd", STUDENT, TEACHER).notes == ["there is one teacher, and it is never dropped"]


def test_scratch_has_no_terms() -> None:
    assert not build("scratch", STUDENT, TEACHER).losses(STUDENT, TEACHER, batch(CLASSES))


def test_srrl_weighs_its_terms_and_reads_the_student_in_two_forms() -> None:
    for form, maps in (("maps", STUDENT.features[-1]), ("pooled", STUDENT.pooled[:, :, None, None])):
        method = build("srrl", STUDENT, TEACHER, form=form, feature_weight=2, logits_weight=3)
        vectors = method.connector(maps).mean((2, 3))
        seen = vectors @ method.classifier_weight.T + method.classifier_bias
        terms = method.losses(STUDENT, TEACHER, batch(6))
        torch.testing.assert_close(terms["feature"], 2 * (vectors - TEACHER.pooled).square().mean())
        torch.testing.assert_close(terms["logits"], 3 * (seen - TEACHER.logits).square().mean())
        assert not any("classifier" in key for key, _ in method.named_parameters())


def test_mgd_masks_another_share_of_the_channels_in_each_image() -> None:
    method = build("mgd", STUDENT, TEACHER, beta=1, masked=0.15)
    draws = torch.tensor([0.1499, 0.15] * 5).repeat(6, 1)
    kept = (draws >= 0.15)[:, :, None, None]
    expected = (method.generation(STUDENT.features[-1] * kept) - TEACHER.features[-1]).square().sum() / 6
    torch.testing.assert_close(method.distance(STUDENT.features[-1], TEACHER.features[-1], draws), expected)
    drawn = torch.rand(6, 10, generator=batch(6).generator)
    (loss,) = method.losses(STUDENT, TEACHER, batch(6)).values()
    torch.testing.assert_close(loss, method.distance(STUDENT.features[-1], TEACHER.features[-1], drawn))


@pytest.mark.parametrize(("name", "decaying"), [("wkd_f", ("mean", "spread")), ("wkd_l", ("others",))])
def test_wkd_decays_by_a_cosine_after_epoch_150(name: str, decaying: tuple[str, ...]) -> None:
    method = build(name, STUDENT, TEACHER).eval()  # the projector's batch norms give the same each time

    def terms(epoch: int) -> dict[str, Tensor]:
        return dict(method.losses(STUDENT, TEACHER, batch(6, epoch=epoch, epochs=240)))

    full = terms(0)
    for epoch, weight in ((149, 1), (150, (1 + math.cos(math.pi / 90)) / 2), (194, 0.5), (239, 0)):
        for term, value in terms(epoch).items():
            torch.testing.assert_close(value, (weight if term in decaying else 1) * full[term], atol=1e-5, rtol=1e-4)
    short = dict(method.losses(STUDENT, TEACHER, batch(6, epoch=9, epochs=10)))
    assert all(torch.equal(short[term], full[term]) for term in full)


def test_semckd_fills_the_rows_of_a_smaller_batch_with_zeros() -> None:
    method = build("semckd", STUDENT, TEACHER)
    assert method.queries[0][0].in_features == 64
    first = method.queries[0][0].weight
    (loss,) = method.losses(STUDENT, TEACHER, batch(6)).values()
    (gradient,) = torch.autograd.grad(loss, [first])
    assert gradient[:, :6].abs().sum() > 0
    assert not gradient[:, 6:].any()


def test_afd_weighs_the_energies_of_all_pairs_of_groups() -> None:
    teacher = outputs(6, sizes=((9, 8, 8), (6, 4, 2)), seed=1)
    method = build("afd", STUDENT, teacher, beta=3)
    weights = method.attention(STUDENT.features, teacher.features)
    assert weights.shape == (6, 2, 3)
    torch.testing.assert_close(weights.sum(2), torch.ones(6, 2))
    method = build("afd", STUDENT, teacher, beta=3)  # batch norms anew
    expected = torch.zeros(())
    for t, f_t in enumerate(teacher.features):
        v_t = F.normalize((f_t**2).mean(1).flatten(1))
        for s, f_s in enumerate(STUDENT.features):
            v_s = F.normalize(F.adaptive_avg_pool2d((f_s**2).mean(1), f_t.shape[2:]).flatten(1))
            expected = expected + (weights[:, t, s] * ((v_s - v_t) ** 2).mean(1)).mean()
    torch.testing.assert_close(only(method.losses(STUDENT, teacher, batch(6))), 3 * expected)


def test_irg_compares_distances_and_vectors_of_one_width() -> None:
    def graph(pooled: Tensor) -> Tensor:
        squares = torch.cdist(pooled, pooled) ** 2
        return squares / squares.max()

    terms = build("irg", STUDENT, TEACHER, beta=2).losses(STUDENT, TEACHER, batch(6))
    expected = 2 * F.mse_loss(graph(STUDENT.pooled), graph(TEACHER.pooled))
    torch.testing.assert_close(terms["edges"], expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(terms["vertices"], 2 * F.mse_loss(STUDENT.pooled, TEACHER.pooled))
    wide = outputs(6, sizes=((6, 8, 8), (12, 2, 2)), seed=1)
    assert set(build("irg", STUDENT, wide).losses(STUDENT, wide, batch(6))) == {"edges"}


def test_norm_compares_each_copy_with_the_teachers_map_and_changes_its_weight() -> None:
    larger = outputs(6, sizes=((6, 8, 8), (4, 4, 4)), seed=1)
    method = build("norm", STUDENT, larger, copies=3, beta=2, scale=4).eval()  # batch norms that give the same each time
    maps = STUDENT.features[-1]
    expanded, wanted = method.expand(maps), F.max_pool2d(larger.features[-1], 2)
    expected = sum(2 * (expanded[:, i : i + 4] - wanted).square().mean() for i in (0, 4, 8))
    for epoch, weight in ((0, 0.1), (9, 0.1), (10, 0.5), (20, 1), (179, 1), (180, 0.5), (209, 0.5), (210, 0.1), (239, 0.1)):
        found = only(method.losses(STUDENT, larger, batch(6, epoch=epoch, epochs=240)))
        torch.testing.assert_close(found, weight * expected)
    logits = STUDENT.classify((maps + method.contract(expanded)).mean((2, 3)))
    centred = logits - logits.mean(1, keepdim=True)
    torch.testing.assert_close(method.predict(STUDENT), 4 * centred / centred.std(1, correction=0, keepdim=True))


def test_the_maps_of_catkd_go_without_the_classifiers_bias() -> None:
    found = []
    for bias in (0.0, 3.0):
        student = replace(STUDENT, classifier=lambda values, bias=bias: STUDENT.classify(values) + bias)
        found.append(only(build("catkd", STUDENT, TEACHER).losses(student, TEACHER, batch(6))))
    assert torch.allclose(found[0], found[1], rtol=1e-4)


def test_maps_are_pooled_as_torch_pools_them_whoever_asks_first() -> None:
    maps = torch.randn(2, 3, 7, 5, requires_grad=True)
    with torch.inference_mode():
        pool_to(maps, (3, 4))
    for dtype in (torch.float64, torch.float32):
        torch.testing.assert_close(pool_to(maps.to(dtype), (3, 4)), F.adaptive_avg_pool2d(maps.to(dtype), (3, 4)))
    assert pool_to(maps, 3).equal(pool_to(maps, (3, 3)))
    pool_to(maps, (3, 4)).sum().backward()
