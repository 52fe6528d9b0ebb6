"""The traps of single methods: where published code went wrong, or where ours could. What holds of all is in test_conformance."""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from conftest import Lab
from torch import Tensor

from kdbench import (
    SGD,
    Batch,
    Composition,
    Dataset,
    KdbenchError,
    Losses,
    Method,
    Outputs,
    Pair,
    PairError,
    SourceParams,
    Split,
    Stage,
    TeacherParts,
    View,
    build_method,
    load_results,
)
from kdbench.conformance.hook_points import map_tensors
from kdbench.docs.methods import shipped_methods
from kdbench.method.interface import METHODS
from kdbench.method.losses import full_precision, kd_divergence
from kdbench.report.notes import footnotes
from kdbench.runner.preflight import misfits
from kdbench.spec.recipe import Recipe
from kdbench.training.builder import Builder

SIZES = ((6, 8, 8), (8, 4, 4), (10, 2, 2))
CLASSES = 5
VIEW_SIZES = {"strong": 1, "rotations": 3, "mixup": 1}
"""How many images each view has of one image."""


def outputs(batch: int, *, sizes: tuple[tuple[int, int, int], ...] = SIZES, seed: int = 0) -> Outputs:
    """Random hook points in which features follow from pre-activations and pooled vectors from features, as in a network.

    They have every view and a classifier that gives as many classes as the logits have.
    """
    random = partial(torch.randn, generator=torch.Generator().manual_seed(seed))

    def plain(images: int) -> Outputs:
        preactivations = tuple(random(images, *size) for size in sizes)
        features = tuple(maps.relu() for maps in preactivations)
        stem = random(images, *sizes[0]).relu()
        logits, pooled = random(images, CLASSES), features[-1].mean((2, 3))
        return Outputs(logits, stem, features, preactivations, pooled, heads=(logits, -logits), pooled_maps=features[-1])

    own, views = plain(batch), {view: plain(count * batch) for view, count in VIEW_SIZES.items()}
    weight = random(CLASSES, sizes[-1][0])
    return replace(own, views=views, classifier=lambda values: torch.einsum("kd,bd...->bk...", weight, values))


def pair(student: Outputs, teacher: Outputs, samples: int = 40) -> Pair:
    norms = tuple((torch.rand(maps.shape[1]) + 0.1, torch.randn(maps.shape[1])) for maps in teacher.preactivations)
    parts = TeacherParts(torch.randn(CLASSES, teacher.features[-1].shape[1]), torch.randn(CLASSES), norms)
    return Pair(student.shapes(), teacher.shapes(), torch.arange(samples) % CLASSES, parts, (3, 8, 8))


def batch(size: int, **changes: object) -> Batch:
    start = Batch(
        images=torch.zeros(size, 3, 8, 8),
        labels=torch.arange(size) % CLASSES,
        indices=torch.arange(size),
        epoch=5,
        epochs=10,
        generator=torch.Generator().manual_seed(1),
    )
    given = replace(start, **changes)  # type: ignore[arg-type]
    views = {
        name: View(given.images.repeat_interleave(count, 0), given.labels.repeat_interleave(count))
        for name, count in VIEW_SIZES.items()
    }
    return replace(given, views=views)


def losses_of(method: Method) -> Iterator[tuple[str, Callable[..., Losses]]]:
    yield from ((stage.name, stage.losses) for stage in method.stages())
    yield "main", method.losses


def build(name: str, student: Outputs, teacher: Outputs, **params: object) -> Any:
    cls = METHODS.get(name)
    if name == "crd":
        params = {"negatives": 16, **params}
    torch.manual_seed(0)
    return cls(cls.Params(**params), pair(student, teacher))


def around_adapters(method: Method, call: Callable[..., object]) -> None:
    """Let `call(forward, *inputs)` stand for the forward pass of every module in a method."""
    for module in method.modules():
        if module is not method:
            module.forward = partial(call, module.forward)


def in_float32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(in_float32, value))
    return map_tensors(value, Tensor.float) if isinstance(value, Outputs) else value.float()


IN_BFLOAT16 = {"byot": 5e-4, "semckd": 1e-4}
"""How far these two are off: byot averages maps of its bottlenecks, and semckd pools maps, before a loss sees them."""


@pytest.mark.parametrize("name", shipped_methods())
def test_losses_are_computed_in_full_precision_under_autocast(name: str) -> None:
    """Adapters run in bfloat16, where a loss never does: with adapters alone under autocast the two agree in every bit."""
    student, teacher = outputs(8), outputs(8, seed=1)
    whole, adapters_alone = build(name, student, teacher), build(name, student, teacher)
    in_half: list[bool] = []
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)

    def noted(forward: Callable[..., object], *inputs: object) -> object:
        in_half.append(torch.is_autocast_enabled("cpu"))  # and not where a loss has turned it off
        return forward(*inputs)

    def in_half_alone(forward: Callable[..., object], *inputs: object) -> object:
        inner = torch.is_autocast_enabled("cpu")
        with autocast(enabled=in_half.pop(0)):
            found = forward(*inputs)
        return found if inner else in_float32(found)

    around_adapters(whole, noted)
    around_adapters(adapters_alone, in_half_alone)
    for (stage, rough), (_, exact) in zip(losses_of(whole), losses_of(adapters_alone), strict=True):
        first = teacher if stage == "paraphraser" else student
        with autocast():
            found = rough(first, teacher, batch(8))
        expected = exact(first, teacher, batch(8))
        assert not in_half
        for term in expected:
            assert found[term].dtype == torch.float32, (term, found[term].dtype)
            torch.testing.assert_close(found[term], expected[term], rtol=IN_BFLOAT16.get(name, 0.0), atol=0.0)


def test_afd_pools_energies_in_full_precision_under_autocast() -> None:
    code = sys.modules[METHODS.get("afd").__module__]
    student, (teacher, *_) = ([code.energy(maps) for maps in outputs(8, sizes=sizes).features] for sizes in (SIZES, SIZES[1:]))
    expected = code.distances(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(code.distances(student, teacher), expected)


@pytest.mark.parametrize("names", [{"student"}, {"student", "weight"}, set()])
def test_only_functions_of_tensors_are_computed_in_full_precision(names: set[str]) -> None:
    """Of a tensor beside `Outputs` alone it would be half done, without a word."""
    given = {name: value for name, value in {"student": outputs(4), "weight": torch.ones(())}.items() if name in names}
    with pytest.raises(TypeError, match=r"full_precision decorates functions of tensors, and .*distance is given "):
        full_precision(distance)(**given)


def distance(student: Outputs | None = None, weight: Tensor | float = 1.0) -> Tensor | float:
    return weight * student.logits.mean() if student else weight


def test_terms_in_full_precision_are_counted_where_nothing_is_computed() -> None:
    logits = torch.empty(2, 3, device="meta")
    assert kd_divergence(logits, logits, 4.0).is_meta


@pytest.mark.parametrize("name", ["at", "ft", "ft_repdistiller", "mgd", "nst", "ofd", "simkd", "vid"])
def test_a_method_says_that_it_pools_maps_of_unequal_size(name: str) -> None:
    larger = tuple((channels, 2 * size, 2 * size) for channels, size, _ in SIZES)
    assert not build(name, outputs(4), outputs(4)).notes
    assert any("pool" in note for note in build(name, outputs(4), outputs(4, sizes=larger)).notes)


@pytest.mark.parametrize("name", ["ab", "at", "nst", "ofd", "reviewkd", "vid"])
def test_a_method_says_which_groups_it_pairs_where_their_numbers_differ(name: str) -> None:
    assert any("the last 2 are paired" in note for note in build(name, outputs(4), outputs(4, sizes=SIZES[1:])).notes)


PIXELS = tuple((channels, 1, 1) for channels, *_ in SIZES)


def built_for(
    name: str, *, classes: int = CLASSES, batches: tuple[int, int] = (8, 8), sizes: Any = SIZES, **params: object
) -> Method:
    """A method for so many classes, smallest and largest batch, and maps of a student whose teacher is like it."""
    points = outputs(4, sizes=sizes), outputs(4, sizes=sizes, seed=1)
    both = pair(*(replace(point, logits=torch.zeros(4, classes)) for point in points))
    smallest, largest = batches
    cls = METHODS.get(name)
    return cls(cls.Params(**params), replace(both, smallest_batch=smallest, largest_batch=largest))  # type: ignore[no-any-return]


REFUSALS: list[tuple[list[str], dict[str, Any], str]] = [
    # methods, what the training is like, and why nothing of them is left in it
    (
        [
            *("ab", "crld", "ctkd", "dist", "dkd", "dml", "eakd", "fitnets", "kd", "kd_standardized", "mlkd", "mlkd_noaug", "nkd"),
            *("normkd", "rld", "skd", "ttm", "wsld"),
        ],
        {"classes": 1},
        "at least 2 classes, and the data set has 1",
    ),
    (["dist"], {"classes": 2, "batches": (2, 2)}, "3 classes, or batches of 3 images"),
    (["cc", "pkt", "reviewkd", "sp"], {"batches": (1, 1)}, "at least 2 images in every batch, and the smallest .* has 1; raise"),
    (["afd", "irg", "itrd", "rsd"], {"batches": (1, 1)}, "at least 2 images in every batch"),
    (["ickd", "norm", "semckd", "srrl"], {"sizes": PIXELS, "batches": (1, 1)}, "at least 2 images in every batch"),
    (["srrl"], {"batches": (1, 1), "form": "pooled"}, "at least 2 images in every batch"),
    (["norm", "wkd_l"], {"classes": 2}, "at least 3 classes"),
    (["wkd_f"], {"sizes": PIXELS}, "a cell of the student's last map of 1x1 has one place alone; choose larger images or another"),
    (
        ["wkd_f"],
        {"grid": 2},
        "within 2x2 cells of a map, and a cell of the student's last map of 2x2 has one place alone; choose a smaller `grid` or",
    ),
    (["ickd"], {"memory_limit_gib": 1e-6}, "GiB for its 10x10 matrices of each image, above memory_limit_gib = 1e-06; lower"),
    (["rkd"], {"batches": (1, 1)}, "of fewer than 3 nothing is left; here a batch has 1 at most. Raise `batch_size`"),
    (["rkd"], {"batches": (2, 2)}, "here a batch has 2 at most"),
    (["afd", "at", "ft_repdistiller", "nst"], {"sizes": PIXELS}, "the maps to be compared are of 1x1; choose larger images"),
    (["ft"], {"sizes": PIXELS, "k": 0.01}, "the maps to be compared are of 1x1"),
    (["fitnets", "fitnets_hint", "ofd", "simkd"], {"sizes": PIXELS, "batches": (1, 1)}, "at least 2 images in every batch"),
    (["ft"], {"sizes": PIXELS, "batches": (1, 1), "batch_norm": "translator"}, "at least 2 images in every batch"),
    (["rkd"], {"batches": (8, 2000)}, r"about 90\.3 GiB for the angles in a batch of 2000, above memory_limit_gib = 16; lower"),
    (["nst"], {"batches": (8, 8), "memory_limit_gib": 1e-6}, "GiB for its products of channels, above memory_limit_gib = 1e-06"),
    (["fsp"], {"batches": (8, 8), "memory_limit_gib": 1e-6}, "GiB for its flow matrices, above"),
]


@pytest.mark.parametrize(("names", "training", "reason"), REFUSALS)
def test_what_leaves_nothing_of_a_method_or_is_too_large_is_refused(
    names: list[str], training: dict[str, Any], reason: str
) -> None:
    for name in names:
        with pytest.raises(PairError, match=reason):
            built_for(name, **training)


NOTES: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    # a method, what the training is like, the note, and the weights of what is left
    ("dkd", {"classes": 2}, "with two classes the non-target term compares distributions over one class, and is 0", ("alpha",)),
    ("kd_standardized", {"classes": 2}, "nothing is transferred, and the student learns from the cross-entropy alone", ()),
    ("dist", {"classes": 2}, "the inter-class term teaches nothing", ("gamma",)),
    ("dist", {"batches": (2, 2)}, "the intra-class term teaches nothing", ("beta",)),
    ("at", {"sizes": (*SIZES[:2], PIXELS[2])}, "1 of 3 pairs of groups teach nothing, since they meet in maps of 1x1", ("beta",)),
    ("nst", {"sizes": (*SIZES[:2], PIXELS[2])}, "1 of 3 pairs of groups teach nothing", ("beta",)),
    ("nkd", {"classes": 2}, "the non-target term is 0", ()),
    ("normkd", {"classes": 2}, "nothing is transferred", ()),
    ("rld", {"classes": 2}, "at most one is ranked below the label, and the term of those that are is 0", ("alpha",)),
    *((name, {"classes": 2, "standardized": True}, "nothing is transferred", ()) for name in ("ctkd", "dkd")),
    *((name, {"classes": 2, "standardized": True}, "only their products teach", ("kd_weight",)) for name in ("mlkd", "mlkd_noaug")),
]


@pytest.mark.parametrize(("name", "training", "note", "weights"), NOTES)
def test_a_term_that_teaches_nothing_is_noted_and_none_of_its_weights_advised(
    name: str, training: dict[str, Any], note: str, weights: tuple[str, ...]
) -> None:
    method = built_for(name, **training)
    assert [found for found in method.notes if note in found]
    assert method.weights == weights
    assert not built_for(name).notes


@pytest.mark.parametrize("name", shipped_methods())
def test_two_images_in_the_last_of_larger_batches_are_enough(name: str) -> None:
    built_for(name, batches=(2, 8))


@pytest.mark.parametrize("name", ["rkd", "cc"])
def test_a_loop_of_ones_own_is_told_of_a_batch_of_one_image(name: str) -> None:
    method = Composition({name: built_for(name)})
    with pytest.raises(KdbenchError, match=rf"{name} needs at least 2 images .* this one has 1\. Leave .* drop_last=True"):
        method.losses(outputs(1), outputs(1, seed=1), batch(1))


def test_build_method_refuses_the_batch_size_that_it_is_given() -> None:
    given = {"student": outputs(1), "teacher": outputs(1, seed=1)}
    assert build_method("cc", **given)
    with pytest.raises(PairError, match="cc: it needs at least 2 images"):
        build_method("cc", **given, batch_size=1)


@pytest.mark.parametrize(
    ("images", "batch_size", "bounds"), [(33, 32, (33, 33)), (34, 32, (2, 32)), (2, 32, (2, 2)), (5, 1, (1, 1))]
)
def test_a_pair_knows_the_smallest_and_the_largest_batch(images: int, batch_size: int, bounds: tuple[int, int]) -> None:
    split = Split(torch.zeros(images, 8, 8, 3, dtype=torch.uint8), torch.arange(images) % 2)
    builder = Builder(Dataset(split, split, ("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3), SourceParams(), torch.device("cpu"))
    recipe = Recipe(epochs=1, batch_size=batch_size, optimiser=SGD(lr=0.1))
    point = outputs(4)
    found = builder.pair(point.shapes(), [point.shapes()], pair(point, point).teacher_parts, recipe)
    assert (found.smallest_batch, found.largest_batch) == bounds


def test_a_network_whose_batch_norm_meets_one_pixel_is_refused_on_batches_of_one_image(lab: Lab) -> None:
    for student, refused in (("mobilenetv2_half", True), ("resnet8", False)):
        pairs = [{"teacher": "wrn_10_1", "student": student}]
        suite = lab.suite(methods=["scratch"], recipe={"batch_size": 1}, pairs=pairs)
        problems, _ = misfits(lab.builder(suite), suite.trials, download=False)
        assert ["cannot train on batches of one image" in str(problem) for problem in problems] == [True] * refused


def test_a_pair_in_two_recipes_is_looked_at_in_both(lab: Lab) -> None:
    """One teacher and one student, with batches of 32 and of one."""
    trials = [trial for size in (1, 32) for trial in lab.suite(methods=["sp"], recipe={"batch_size": size}).trials]
    ((problem,), _) = misfits(lab.builder(lab.suite(methods=["sp"])), trials, download=False)
    assert "sp: it needs at least 2 images in every batch" in str(problem)


def test_notes_reach_the_log_the_record_and_the_table(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    changes = {"dataset": {"train_images": 6}, "recipe": {"batch_size": 2, "epochs": 1, "schedule": {"milestones": []}}}
    suite = lab.suite(methods=["dist"], **changes)
    lab.run(suite)
    note = "in batches of two a class's correlation is 1 or -1, and the intra-class term teaches nothing"
    assert f"note: wrn_10_1 -> resnet8: dist: {note}." in said
    assert lab.record(suite.trials[0]).notes == (f"dist: {note}",)
    assert f"DIST (wrn_10_1 → resnet8): {note}." in footnotes(load_results(lab.store.root))


@pytest.mark.parametrize(("name", "channels"), [("ft", 4), ("ft_repdistiller", 3)])
def test_the_channels_of_a_factor_are_rounded_as_in_the_code_of_each(name: str, channels: int) -> None:
    """FT's authors have int(round(64 * k)), and RepDistiller int(c * k); here they are 0.38 of 10."""
    assert build(name, outputs(4), outputs(4), k=0.38).encoder[-2].out_channels == channels


def crd(labels: Tensor, **params: object) -> Any:
    student, teacher = outputs(4), outputs(4, seed=1)
    cls = METHODS.get("crd")
    return cls(cls.Params(**params), replace(pair(student, teacher), labels=labels))


def test_crd_draws_uniformly_from_all_samples_of_other_classes_and_from_no_other() -> None:
    labels = torch.tensor([2, 0, 1, 1, 2, 0, 2, 2, 1, 3])
    method = crd(labels, negatives=20000)
    drawn = method.draw(batch(4, labels=torch.tensor([0, 1, 2, 3]), generator=torch.Generator().manual_seed(0)))
    for row, label in zip(drawn, range(4), strict=True):
        counts = torch.bincount(row, minlength=len(labels))
        others = labels != label
        assert (counts[~others] == 0).all()
        expected = 20000 / others.sum().item()
        assert (counts[others] - expected).abs().max() < 5 * math.sqrt(expected)


def test_crd_knows_classes_that_have_no_training_images() -> None:
    drawn = crd(torch.arange(40) % 3, negatives=200).draw(batch(4, labels=torch.tensor([0, 1, 3, 4])))
    assert set(drawn[2].tolist()) | set(drawn[3].tolist()) == set(range(40))


def test_crd_of_a_batch_of_one_class_is_finite() -> None:
    method = crd(torch.arange(40) % 5, negatives=16)
    loss = method.losses(outputs(4), outputs(4, seed=1), batch(4, labels=torch.zeros(4, dtype=torch.int64)))
    assert torch.isfinite(loss["contrast"])


def test_crd_is_exact_at_the_size_of_cifar() -> None:
    """50,000 samples, 16,384 negatives: the contrast as the paper has it, each negative's vector gathered for each anchor."""
    samples, size, eps = 50_000, 4, 1e-7
    student, teacher = outputs(size), outputs(size, seed=1)
    torch.manual_seed(0)
    cls = METHODS.get("crd")
    method = cls(cls.Params(beta=1), pair(student, teacher, samples=samples)).double()
    count, temperature = method.params.negatives, method.params.temperature
    assert count == 16384
    index = torch.tensor([7, 49_999, 20_000, 12_345])
    given = batch(size, indices=index, labels=index % CLASSES, generator=torch.Generator().manual_seed(2))
    negatives = method.draw(replace(given, generator=torch.Generator().manual_seed(2)))
    assert negatives.shape == (size, count) and not (negatives % CLASSES == given.labels[:, None]).any()
    v_s, v_t = (
        torch.nn.functional.normalize(embed(points.pooled.double())).detach()
        for embed, points in ((method.embed_student, student), (method.embed_teacher, teacher))
    )
    expected = 0.0
    for anchors, bank in ((v_s, method.bank_teacher.vectors), (v_t, method.bank_student.vectors)):
        chosen = torch.cat((index[:, None], negatives), dim=1)
        scores = torch.stack([(bank[row] @ anchor / temperature).exp() for row, anchor in zip(chosen, anchors, strict=True)])
        scores = scores / (scores.mean() * samples)
        noise = count / samples
        positive = torch.log(scores[:, 0] / (scores[:, 0] + noise + eps)).sum()
        negative = torch.log(noise / (scores[:, 1:] + noise + eps)).sum()
        expected -= float(positive + negative) / size
    (loss,) = method.losses(*(map_tensors(points, Tensor.double) for points in (student, teacher)), given).values()
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_crd_refuses_what_does_not_fit_and_says_what_it_needs() -> None:
    with pytest.raises(PairError, match=r"needs about 0\.000153 GiB.* batch of 64, above memory_limit_gib = 0\.0001"):
        crd(torch.arange(40) % 5, memory_limit_gib=0.0001)


def test_crd_refuses_training_images_of_one_class() -> None:
    with pytest.raises(PairError, match="its negatives are of other classes, and all training images are of one"):
        crd(torch.full((40,), 3))


@pytest.mark.parametrize("temperature", [0.07, 0.0113, 0.001, 1e-6])
def test_crd_of_a_small_temperature_is_what_it_is_in_higher_precision(temperature: float) -> None:
    """e^(1 / 0.0113) is the largest power that float32 holds."""
    student, teacher = outputs(4), outputs(4, seed=1)
    torch.manual_seed(0)
    method = crd(torch.arange(40) % 5, negatives=16, temperature=temperature)
    exact = copy.deepcopy(method).double()
    for _ in range(2):  # the second step finds the normaliser that the first has set
        (found,) = method.losses(student, teacher, batch(4)).values()
        (expected,) = exact.losses(*(map_tensors(points, Tensor.double) for points in (student, teacher)), batch(4)).values()
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
        found.backward()
        assert all(parameter.grad.isfinite().all() for parameter in method.parameters())


def test_crd_moves_the_banks_once_per_step_and_keeps_its_normalisers() -> None:
    method = crd(torch.arange(40) % 5, negatives=16)
    before = method.bank_student.vectors.clone()
    method.losses(outputs(4), outputs(4, seed=1), batch(4))
    normaliser = method.bank_student.log_normaliser.clone()
    assert normaliser.isfinite()
    after = method.bank_student.vectors
    assert (after != before).any(1).nonzero().flatten().tolist() == [0, 1, 2, 3]
    method.losses(outputs(4, seed=7), outputs(4, seed=1), batch(4))
    assert torch.equal(method.bank_student.log_normaliser, normaliser)
    again = crd(torch.arange(40) % 5, negatives=16)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.bank_student.vectors, method.bank_student.vectors)


def test_simkd_predicts_with_the_teachers_classifier() -> None:
    student, teacher = outputs(4), outputs(4, seed=1)
    both = pair(student, teacher)
    cls = METHODS.get("simkd")
    method = cls(cls.Params(), both).eval()
    method.projector = torch.nn.Identity()
    mimic = replace(student, features=teacher.features)
    expected = teacher.features[-1].mean((2, 3)) @ both.teacher_parts.classifier_weight.T + both.teacher_parts.classifier_bias
    torch.testing.assert_close(method.predict(mimic), expected)
    assert method.ce_weight == 0
    assert not any("classifier" in key for key, _ in method.named_parameters())


def test_simkd_normalises_a_batch_once_per_step() -> None:
    student, teacher = outputs(4), outputs(4, seed=1)
    method = build("simkd", student, teacher)
    method.losses(student, teacher, batch(4))
    method.predict(student)
    assert method.projector[1].num_batches_tracked == 1
    method.predict(outputs(4, seed=3))
    assert method.projector[1].num_batches_tracked == 2


def test_simkd_refuses_a_teacher_whose_classifier_reads_something_else() -> None:
    student = replace(outputs(4), pooled_maps=torch.empty(4, 0, 0, 0))  # its own classifier is not read
    with pytest.raises(PairError, match="the teacher's classifier pools"):
        build("simkd", student, replace(outputs(4, seed=1), pooled_maps=torch.empty(0)))
    build("simkd", student, outputs(4, seed=1))


def test_fsp_refuses_unequal_channels() -> None:
    wide = ((6, 8, 8), (9, 4, 4), (10, 2, 2))
    with pytest.raises(PairError, match=r"\[6, 6, 8, 10\], the teacher \[6, 6, 9, 10\]"):
        build("fsp", outputs(4), outputs(4, sizes=wide))


@pytest.mark.parametrize("name", ["ab", "ofd", "reviewkd"])
def test_networks_without_preactivations_are_refused(name: str) -> None:
    with pytest.raises(PairError, match="pre-activations"):
        build(name, outputs(4), replace(outputs(4), preactivations=()))


def test_ofd_refuses_a_teacher_without_batch_norms() -> None:
    both = pair(outputs(4), outputs(4))
    cls = METHODS.get("ofd")
    with pytest.raises(PairError, match="batch norm"):
        cls(cls.Params(), replace(both, teacher_parts=replace(both.teacher_parts, norms=())))


@pytest.mark.parametrize(
    ("name", "weights"), [("dkd", (1 / 20, 2 / 20, 1, 1)), ("sdd", (1 / 20, 2 / 20, 1, 1)), ("reviewkd", (0, 1 / 20, 19 / 20, 1))]
)
def test_the_warm_up_is_linear_over_20_epochs(name: str, weights: tuple[float, ...]) -> None:
    student, teacher = outputs(4), outputs(4, seed=1)

    def total(epoch: int) -> Tensor:
        return torch.stack(list(build(name, student, teacher).losses(student, teacher, batch(4, epoch=epoch)).values()))

    full = total(1000)
    for epoch, weight in zip((0, 1, 19, 20), weights, strict=True):
        torch.testing.assert_close(total(epoch), weight * full)
    without = build(name, student, teacher, warm_up_epochs=0).losses(student, teacher, batch(4, epoch=0))
    torch.testing.assert_close(torch.stack(list(without.values())), full)


def test_the_hint_of_repdistiller_is_the_second_group_however_many_there_are() -> None:
    """Of four groups, as vgg and mobilenetv2 have, the middle one is the third."""
    channels = 6, 8, 10, 12
    for n in range(1, 5):
        sizes = tuple((width, 2 ** (5 - i), 2 ** (5 - i)) for i, width in enumerate(channels[:n]))
        student, teacher = outputs(4, sizes=sizes), outputs(4, sizes=tuple((3 * c, h, w) for c, h, w in sizes), seed=1)
        hint = build("fitnets_hint", student, teacher, beta=2.0)
        guided, wanted = student.features[:2][-1], teacher.features[:2][-1]
        assert hint.regressor(guided).shape == wanted.shape
        loss = hint.losses(student, teacher, batch(4))["hint"]
        torch.testing.assert_close(loss, 2 * (hint.regressor(guided) - wanted).square().mean())


def test_the_hint_of_fitnets_is_the_middle_group() -> None:
    sizes = ((6, 16, 16), (8, 8, 8), (10, 4, 4), (12, 2, 2))
    fitnets = build("fitnets", outputs(4, sizes=sizes), outputs(4, sizes=sizes))
    assert fitnets.regressor[0].in_channels == 10


def test_vid_trains_its_variance() -> None:
    assert sum("log_scale" in key for key, _ in build("vid", outputs(4), outputs(4)).named_parameters()) == 3


@pytest.mark.parametrize("name", ["ab", "fsp"])
def test_the_initialisation_trains_the_student_for_30_epochs(name: str) -> None:
    (stage,) = build(name, outputs(4), outputs(4)).stages()
    assert isinstance(stage, Stage)
    assert (stage.epochs, stage.trains_student) == (30, True)


def test_rkd_is_not_torn_apart_by_coinciding_samples() -> None:
    pooled = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    pooled[1] = pooled[0]
    student = replace(outputs(6), pooled=pooled.requires_grad_())
    method = build("rkd", student, outputs(6, seed=1))
    total = sum(method.losses(student, outputs(6, seed=1), batch(6)).values())
    (gradient,) = torch.autograd.grad(total, [student.pooled])
    assert gradient.abs().max() < 100


def test_dml_trains_two_networks_that_never_reach_into_each_other():
    student = outputs(4)
    student.logits.requires_grad_()
    dml = build("dml", student, outputs(4, seed=1), peer="resnet8", beta=2.0)
    given = batch(4, images=torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    terms = dml.losses(student, student, given)
    p_s, p_p = student.logits.softmax(1), dml.peer(given.images).logits.softmax(1)
    torch.testing.assert_close(terms["divergence"], 2 * (p_p * (p_p / p_s).log()).sum(1).mean())
    torch.testing.assert_close(terms["peer_divergence"], 2 * (p_s * (p_s / p_p).log()).sum(1).mean())

    def reached(term: str) -> tuple[bool, bool]:
        gradients = torch.autograd.grad(
            terms[term], [student.logits, dml.peer.classifier.weight], allow_unused=True, retain_graph=True
        )
        return tuple(gradient is not None for gradient in gradients)

    assert {term: reached(term) for term in terms} == {
        "divergence": (True, False),
        "peer_cross_entropy": (False, True),
        "peer_divergence": (False, True),
    }


def test_dml_refuses_a_peer_that_no_model_is():
    with pytest.raises(PairError, match=r"peer: unknown model 'resnet21'"):
        build("dml", outputs(4), outputs(4, seed=1), peer="resnet21")


def test_the_cost_of_wkd_needs_a_classifier_of_the_teacher() -> None:
    both = pair(outputs(4), outputs(4))
    cls = METHODS.get("wkd_l")
    with pytest.raises(PairError, match="the teacher has none that is linear; choose another teacher"):
        cls(cls.Params(), replace(both, teacher_parts=replace(both.teacher_parts, classifier_weight=torch.empty(0, 0))))


def test_irg_of_two_images_needs_vectors_of_one_width() -> None:
    cls, both = METHODS.get("irg"), pair(outputs(2), outputs(2, sizes=((6, 8, 8), (12, 2, 2))))
    with pytest.raises(PairError, match="so that of two images nothing is left; raise `batch_size`"):
        cls(cls.Params(), replace(both, smallest_batch=2, largest_batch=2))
    cls(cls.Params(), replace(pair(outputs(2), outputs(2)), smallest_batch=2, largest_batch=2))


def test_the_block_of_norm_normalises_a_batch_once_per_step_and_is_part_of_what_predicts() -> None:
    student, teacher = outputs(4), outputs(4, seed=1)
    method = build("norm", student, teacher)
    method.losses(student, teacher, batch(4))
    logits = method.predict(student)
    assert method.expand[1].num_batches_tracked == method.contract[1].num_batches_tracked == 1
    assert method.seen is None
    torch.testing.assert_close(logits.std(1, correction=0), torch.full((4,), 2.5))
    assert set(map(id, method.deployed())) == set(map(id, method.parameters()))


def test_norm_refuses_a_student_whose_classifier_reads_something_else() -> None:
    teacher = replace(outputs(4, seed=1), pooled_maps=torch.empty(0))  # its classifier is not read
    with pytest.raises(PairError, match="the student's classifier pools"):
        build("norm", replace(outputs(4), pooled_maps=torch.empty(0)), teacher)
    build("norm", outputs(4), teacher)


@pytest.mark.parametrize("name", ["catkd", "sdd"])
def test_methods_that_classify_places_refuse_a_network_whose_classifier_pools_no_maps(name: str) -> None:
    lacking = replace(outputs(4), pooled_maps=torch.empty(4, 0, 0, 0))
    with pytest.raises(PairError, match="the student is not known to pool any"):
        build(name, lacking, outputs(4, seed=1))
    with pytest.raises(PairError, match="the teacher is not known to pool any"):
        build(name, outputs(4), lacking)


def test_norm_starts_from_what_the_classifier_pools_and_not_from_the_last_group() -> None:
    student, teacher = outputs(4), outputs(4, seed=1)
    norm, further = build("norm", student, teacher).eval(), replace(student, features=(torch.zeros(4, 10, 2, 2),))
    assert torch.equal(norm.predict(student), norm.predict(further))
