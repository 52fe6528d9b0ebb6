"""The resident pipeline makes the batches that torchvision would make, bit for bit, and the plan decides alone what they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from kdbench.data import EpochPlan, ResidentLoader, Split, batch_bounds, epoch_plan
from kdbench.spec.recipe import Augmentation
from kdbench.streams import generator
from kdbench.training.device import without_waiting

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def random_split(n: int, height: int, width: int, channels: int, *, seed: int = 0) -> Split:
    stream = generator(seed, "images")
    images = torch.randint(0, 256, (n, height, width, channels), generator=stream, dtype=torch.uint8)
    return Split(images, torch.randint(0, 10, (n,), generator=stream))


def resident(split: Split, augmentation: Augmentation, device: str = "cpu") -> ResidentLoader:
    channels = split.images.shape[-1]
    return ResidentLoader(split, mean=MEAN[:channels], std=STD[:channels], augmentation=augmentation, device=device)


def torchvision_image(image: Tensor, *, pad: int, padding_mode: str, top: int, left: int, flip: bool) -> Tensor:
    """The reference: one image (H, W, C) through torchvision's transforms of PIL images."""
    height, width, channels = image.shape
    picture = Image.fromarray(image.squeeze(-1).numpy())
    picture = F.pad(picture, pad, fill=0, padding_mode={"zeros": "constant"}.get(padding_mode, padding_mode))
    picture = F.crop(picture, top, left, height, width)
    if flip:
        picture = F.hflip(picture)
    return F.normalize(F.to_tensor(picture), MEAN[:channels], STD[:channels])


@given(
    n=st.integers(1, 6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    pad=st.integers(0, 5),
    padding_mode=st.sampled_from(["zeros", "reflect"]),
    flip=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_a_batch_is_bitwise_torchvisions(n, height, width, channels, pad, padding_mode, flip, seed):
    split = random_split(n, height, width, channels, seed=seed)
    augmentation = Augmentation(pad=pad, padding_mode=padding_mode, flip=flip)
    plan = epoch_plan(n, augmentation, generator(seed, "plan"))

    images, labels, indices = resident(split, augmentation).batch(plan, 0, n)

    expected = [
        torchvision_image(split.images[index], pad=pad, padding_mode=padding_mode, top=int(top), left=int(left), flip=bool(flipped))
        for index, top, left, flipped in zip(plan.order, plan.top, plan.left, plan.flip, strict=True)
    ]
    assert torch.equal(images, torch.stack(expected))
    assert torch.equal(indices, plan.order)
    assert torch.equal(labels, split.labels[plan.order])


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_value_is_normalised_as_torchvision_does(channels):
    every_value = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, channels)
    images, _ = resident(Split(every_value, torch.zeros(1, dtype=torch.int64)), Augmentation(pad=0)).plain(0, 1)
    expected = torchvision_image(every_value[0], pad=0, padding_mode="zeros", top=0, left=0, flip=False)
    assert torch.equal(images[0], expected)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_plain_images_are_not_augmented(padding_mode):
    split = random_split(7, 6, 5, 3)
    images, labels = resident(split, Augmentation(pad=3, padding_mode=padding_mode)).plain(2, 6)
    expected = [torchvision_image(image, pad=0, padding_mode="zeros", top=0, left=0, flip=False) for image in split.images[2:6]]
    assert torch.equal(images, torch.stack(expected))
    assert torch.equal(labels, split.labels[2:6])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_float32_in_channels_last_layout(channels):
    augmentation = Augmentation()
    made = resident(random_split(5, 8, 6, channels), augmentation)
    batch, _, _ = made.batch(epoch_plan(5, augmentation, generator(0)), 0, 4)
    plain, _ = made.plain(0, 4)
    for images in (batch, plain):
        assert images.shape == (4, channels, 8, 6)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_successive_batches_are_slices_of_the_epoch():
    augmentation = Augmentation(pad=2)
    made = resident(random_split(11, 6, 6, 3), augmentation)
    plan = epoch_plan(11, augmentation, generator(0))
    whole, _, _ = made.batch(plan, 0, 11)
    parts = [made.batch(plan, start, stop)[0] for start, stop in batch_bounds(11, 4)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_plan_visits_every_sample_once_and_uses_every_offset():
    plan = epoch_plan(2000, Augmentation(pad=2), generator(0))
    assert torch.equal(plan.order.sort().values, torch.arange(2000))
    assert plan.top.unique().tolist() == plan.left.unique().tolist() == [0, 1, 2, 3, 4]
    assert not torch.equal(plan.top, plan.left)
    assert 900 < plan.flip.sum() < 1100


def test_a_plan_depends_on_its_stream_alone():
    def drawn(*names: int | str) -> list[Tensor]:
        plan = epoch_plan(50, Augmentation(), generator(3, *names))
        return [plan.order, plan.top, plan.left, plan.flip]

    assert all(torch.equal(a, b) for a, b in zip(drawn("epoch", 1), drawn("epoch", 1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn("epoch", 1), drawn("epoch", 2), strict=True))


def test_switching_one_augmentation_off_leaves_the_rest_of_the_plan():
    full, unflipped, unpadded = (
        epoch_plan(50, augmentation, generator(0))
        for augmentation in (Augmentation(), Augmentation(flip=False), Augmentation(pad=0))
    )
    assert not unflipped.flip.any() and not unpadded.top.any() and not unpadded.left.any()
    assert torch.equal(full.order, unflipped.order) and torch.equal(full.order, unpadded.order)
    assert torch.equal(full.top, unflipped.top) and torch.equal(full.left, unflipped.left)
    assert torch.equal(full.flip, unpadded.flip)


@pytest.mark.parametrize(
    ("n", "batch_size", "bounds"),
    [
        (6, 3, [(0, 3), (3, 6)]),
        (8, 3, [(0, 3), (3, 6), (6, 8)]),  # a short last batch is kept
        (7, 3, [(0, 3), (3, 7)]),  # a single leftover joins the batch before it
        (4, 3, [(0, 4)]),
        (3, 3, [(0, 3)]),
        (2, 3, [(0, 2)]),
        (1, 3, [(0, 1)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),  # batches of one, as asked
    ],
)
def test_batch_bounds(n, batch_size, bounds):
    assert batch_bounds(n, batch_size) == bounds


@given(n=st.integers(1, 400), batch_size=st.integers(2, 130))
def test_batch_bounds_cover_everything_once_and_leave_nobody_alone(n, batch_size):
    bounds = batch_bounds(n, batch_size)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(n))
    assert all(stop - start > 1 for start, stop in bounds) or n == 1


def test_moving_a_plan_keeps_its_values():
    plan = epoch_plan(5, Augmentation(), generator(0))
    moved = plan.to("cpu")
    assert isinstance(moved, EpochPlan)
    assert all(torch.equal(getattr(plan, name), getattr(moved, name)) for name in ("order", "top", "left", "flip"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_cuda_makes_the_batches_of_the_cpu_without_waiting_for_the_host(padding_mode):
    augmentation = Augmentation(padding_mode=padding_mode)
    split = random_split(300, 32, 32, 3)
    plan = epoch_plan(300, augmentation, generator(0))
    expected = resident(split, augmentation).batch(plan, 100, 228)
    on_device, device_plan = resident(split, augmentation, "cuda"), plan.to("cuda")
    with without_waiting(torch.device("cuda")):
        made = on_device.batch(device_plan, 100, 228)
        plain = on_device.plain(0, 300)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(made, expected, strict=True))
    assert torch.equal(plain[0].cpu(), resident(split, augmentation).plain(0, 300)[0])
