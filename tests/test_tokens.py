"""What transformers give beside maps: tokens and the logits of each head. And DeiT's method, which reads these."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Outputs, PairError, build_method, build_model
from kdbench.models import MODELS
from kdbench.models.measure import shapes

timm = pytest.importorskip("timm")

CLASSES = 5
BLOCKS = ("blocks.0", "blocks.1")


@pytest.fixture(autouse=True)
def _tiny() -> Any:
    """Registers the networks of this file, which last as long as a test."""
    restore = MODELS.snapshot()
    for name, kind in (("plain", timm.models.VisionTransformer), ("distilled", timm.models.deit.VisionTransformerDistilled)):
        MODELS.register(f"{name}_for_test")(_factory(kind))
    MODELS.register("summed_for_test")(lambda *, num_classes, in_channels: TwoLayers(num_classes, in_channels, mean=False))
    MODELS.register("thirds_for_test")(lambda *, num_classes, in_channels: Thirds(num_classes, in_channels, mean=False))
    MODELS.register("averaged_for_test")(lambda *, num_classes, in_channels: TwoLayers(num_classes, in_channels, mean=True))
    yield
    restore()


def _factory(kind: type[nn.Module]) -> Any:
    def factory(*, num_classes: int, in_channels: int) -> nn.Module:
        size: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
        return kind(num_classes=num_classes, in_chans=in_channels, **size)

    return factory


class TwoLayers(nn.Module):
    """A convolution and two heads, whose answers are added or averaged as a stack."""

    def __init__(self, num_classes: int, in_channels: int, *, mean: bool) -> None:
        super().__init__()
        self.maps = nn.Conv2d(in_channels, 4, 3)
        self.one, self.two = nn.Linear(4, num_classes), nn.Linear(4, num_classes)
        self.mean = mean

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.maps(images).mean((2, 3))
        given = torch.stack((self.one(pooled), self.two(pooled)))
        return given.mean(0) if self.mean else self.one(pooled) + self.two(pooled)


class Thirds(TwoLayers):
    """The sum of two heads, divided by 3."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 3


def tiny(name: str, **options: Any) -> Any:
    hooks = BLOCKS if name in ("plain", "distilled") else ("maps",)
    return build_model(f"{name}_for_test", num_classes=CLASSES, hooks=hooks, image_size=16, **options)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [False, True])
def test_tokens_are_the_last_norms_and_heads_give_the_logits(training):
    for name, heads in (("plain", ("head",)), ("distilled", ("head", "head_dist"))):
        network = tiny(name).train(training)
        body, outputs = network.body, network(images())
        normed = body.forward_features(images())
        assert len(outputs.tokens) == len(heads)
        assert all(torch.equal(token, normed[:, i]) for i, token in enumerate(outputs.tokens))
        given = [body.get_submodule(head)(token) for head, token in zip(heads, outputs.tokens, strict=True)]
        assert torch.equal(outputs.logits, given[0] if name == "plain" else (given[0] + given[1]) / 2)
        assert len(outputs.heads) == (2 if name == "distilled" else 0)
        assert all(torch.equal(a, b) for a, b in zip(outputs.heads, given, strict=False))


FAMILIES = {
    # the widths of the tokens, and how many heads are averaged
    "torchvision/vit_b_16": ((768,), 0),
    "torchvision/swin_t": ((), 0),
    "torchvision/resnet18": ((), 0),
    "timm/vit_tiny_patch16_224": ((192,), 0),
    "timm/deit_tiny_distilled_patch16_224": ((192, 192), 2),
    "timm/beit_base_patch16_224": ((), 0),  # it averages the others
    "timm/mixer_s32_224": ((), 0),
    "timm/levit_128s": ((), 2),
    "timm/crossvit_9_240": ((), 2),  # it has a class token for each of two widths
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokens_and_heads_of_a_family(name):
    size = 240 if "240" in name else 224
    found = shapes(name, image_shape=(3, size, size), num_classes=CLASSES)
    widths, heads = FAMILIES[name]
    assert found.tokens == tuple((width,) for width in widths)
    assert found.heads == ((CLASSES,),) * heads


def test_heads_are_given_where_their_mean_is_the_logits_and_not_where_their_sum_is():
    assert len(tiny("averaged")(images()).heads) == 2
    assert tiny("summed")(images()).heads == ()
    assert tiny("thirds")(images()).heads == ()


# DeiT


def outputs(*, heads: int = 2, seed: int = 0) -> Outputs:
    """Of a student with so many heads, in float64."""
    random = torch.Generator().manual_seed(seed)
    given = tuple(
        torch.randn(4, CLASSES, dtype=torch.float64, generator=random).requires_grad_(seed == 0) for _ in range(max(heads, 1))
    )
    none = torch.empty(4, 0)
    logits = torch.stack(given).mean(0)
    return Outputs(logits, torch.empty(4, 0, 0, 0), (), (), none, heads=given if heads > 1 else ())


def losses(student: Outputs, teacher: Outputs, *, soft_labels: Tensor | None = None, smoothing: float = 0.0, **params: Any) -> Any:
    method = build_method("deit", student=student, teacher=teacher, **params)
    labels = torch.tensor([0, 3, 3, 1])
    batch = Batch(images(), labels, torch.arange(4), 0, 1, torch.Generator(), soft_labels, label_smoothing=smoothing)
    assert method.ce_weight == 0
    assert torch.equal(method.predict(student), student.logits)
    return method.losses(student, teacher, batch)


def test_the_class_head_learns_labels_and_the_distillation_head_the_teachers_decision():
    student, teacher = outputs(), outputs(heads=1, seed=1)
    of_class, distilled = (-head.log_softmax(1) for head in student.heads)
    found = losses(student, teacher, alpha=0.3)
    rows = torch.arange(4)
    torch.testing.assert_close(found["deit.class_head"], 0.7 * of_class[rows, torch.tensor([0, 3, 3, 1])].mean())
    torch.testing.assert_close(found["deit.distillation_head"], 0.3 * distilled[rows, teacher.logits.argmax(1)].mean())
    gradients = torch.autograd.grad(found["deit.class_head"], student.heads, allow_unused=True, retain_graph=True)
    assert gradients[1] is None
    gradients = torch.autograd.grad(found["deit.distillation_head"], student.heads, allow_unused=True)
    assert gradients[0] is None


def test_the_soft_loss_is_divided_by_the_number_of_classes_as_the_authors_code_does():
    student, teacher = outputs(), outputs(heads=1, seed=1)
    p_t, p_s = (F.softmax(logits / 3, 1) for logits in (teacher.logits, student.heads[1]))
    divergence = (p_t * (p_t.log() - p_s.log())).sum() * 9 / (4 * CLASSES)
    found = losses(student, teacher, kind="soft", temperature=3.0, alpha=0.1)
    torch.testing.assert_close(found["deit.distillation_head"], 0.1 * divergence)


def test_labels_are_smoothed_as_the_recipe_says():
    student, teacher = outputs(), outputs(heads=1, seed=1)
    shares = 0.9 * F.one_hot(torch.tensor([0, 3, 3, 1]), CLASSES) + 0.1 / CLASSES
    expected = -(shares * student.heads[0].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses(student, teacher, smoothing=0.1)["deit.class_head"], 0.5 * expected)


def test_labels_of_mixed_images_are_shares():
    student, teacher = outputs(), outputs(heads=1, seed=1)
    shares = torch.rand(4, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(1)
    expected = -(shares * student.heads[0].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses(student, teacher, soft_labels=shares)["deit.class_head"], 0.5 * expected)


def test_a_student_without_a_distillation_head_is_refused_with_one_that_has_it():
    with pytest.raises(PairError, match=r"does not average two heads; choose a .*timm/deit_tiny_distilled_patch16_224"):
        build_method("deit", student=outputs(heads=1), teacher=outputs(heads=1, seed=1))


def test_a_tiny_distilled_transformer_learns():
    torch.manual_seed(0)
    student, teacher = tiny("distilled").train(), build_model("resnet8", num_classes=CLASSES).eval()
    with torch.no_grad():
        taught = teacher(images())
    method = build_method("deit", student=student(images()), teacher=taught)
    optimiser = torch.optim.AdamW(student.parameters(), lr=0.01)
    batch = Batch(images(), torch.tensor([0, 3, 3, 1]), torch.arange(4), 0, 1, torch.Generator())
    totals = []
    for _ in range(20):
        total = sum(method.losses(student(images()), taught, batch).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert [key for key, parameter in student.named_parameters() if parameter.grad is None] == []
    assert totals[-1] < totals[0] / 4


def test_the_cross_entropy_of_a_training_is_smoothed_as_its_recipe_says(lab, monkeypatch):
    seen = []
    usual = F.cross_entropy

    def cross_entropy(*args: Any, **options: Any) -> Tensor:
        seen.append(options.get("label_smoothing"))
        return usual(*args, **options)

    monkeypatch.setattr(F, "cross_entropy", cross_entropy)
    assert lab.run(lab.suite(methods=["scratch"], recipe={"label_smoothing": 0.1}))
    assert 0.1 in seen
