"""What modules give becomes maps in which every place is where the image has it, or is refused."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from kdbench import KdbenchError, models
from kdbench.catalogue.model import modules_of
from kdbench.models import MODELS, build_model
from kdbench.models.measure import shapes

SIDE = 8
"""Of the grid of a `Grid`, in cells, and how many channels it has: a cube."""


class Arranged(nn.Module):
    """Gives what it reads in another arrangement."""

    def __init__(self, arrange: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.arrange = arrange

    def forward(self, grid: Tensor) -> object:
        return self.arrange(grid)


class Grid(nn.Module):
    """A classifier whose module `arranged` gives a grid (B, H, W, C) of patches of the image as `arrange` has it."""

    def __init__(self, arrange: Callable[[Tensor], object], *, patch: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_channels, SIDE, patch, patch)
        self.arranged = Arranged(arrange)
        self.fc = nn.Linear(SIDE, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.embed(images)
        self.arranged(maps.permute(0, 2, 3, 1))
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


@pytest.fixture
def register() -> Iterator[Callable[..., object]]:
    """Adds `grid_for_test`, with an arrangement, for as long as the test lasts."""
    restore = MODELS.snapshot()
    models._wiring.cache_clear()  # of the last network of this name
    yield lambda arrange, patch=4: MODELS.register("grid_for_test")(partial(Grid, arrange, patch=patch))
    restore()


def with_more(tokens: Tensor, *, before: int = 0, after: int = 0) -> Tensor:
    """Tokens (B, N, C) and others, such as the class token, around them."""
    more = tokens.new_ones(len(tokens), 1, tokens.shape[2])
    return torch.cat([more.expand(-1, before, -1), tokens, more.expand(-1, after, -1)], dim=1)


def windows(grid: Tensor) -> Tensor:
    """(B, windows, cells in a window, C)."""
    batch, side, _, channels = grid.shape
    return grid.view(batch, 2, side // 2, 2, side // 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(batch, 4, -1, channels)


IN_PLACE = {
    "maps, a cube": lambda grid: grid.permute(0, 3, 1, 2),
    "channels last, a cube": lambda grid: grid,
    "tokens, as many as channels squared": lambda grid: grid.flatten(1, 2),
    "tokens after a class token": lambda grid: with_more(grid.flatten(1, 2), before=1),
    "tokens, the first of several things": lambda grid: (grid.flatten(1, 2), "and more"),
}
OUT_OF_PLACE = {
    "tokens window by window": lambda grid: windows(grid).flatten(1, 2),
    "tokens column by column": lambda grid: grid.transpose(1, 2).flatten(1, 2),
    "tokens in reverse": lambda grid: grid.flatten(1, 2).flip(1),
    "tokens before a class token": lambda grid: with_more(grid.flatten(1, 2), after=1),
    "tokens after their channels": lambda grid: grid.flatten(1, 2).transpose(1, 2),
    "maps, transposed": lambda grid: grid.permute(0, 3, 2, 1)[:, :6],
    "channels last, transposed": lambda grid: grid.transpose(1, 2),
    "nothing of the image": lambda grid: torch.ones_like(grid.flatten(1, 2)),
}
OF_NO_BATCH = {
    "windows in the batch": lambda grid: windows(grid).flatten(0, 1),
    "tokens before the batch": lambda grid: grid.flatten(1, 2).transpose(0, 1),
    "a tuple that begins with none": lambda grid: (None, grid),
}


@pytest.mark.parametrize("case", IN_PLACE)
def test_maps_are_those_of_the_image(case, register):
    register(IN_PLACE[case])
    network = build_model("grid_for_test", hooks=["arranged"], image_size=32)
    images = torch.randn(2, 3, 32, 32)
    outputs = network(images)
    assert torch.equal(outputs.features[0], network.body.embed(images))
    assert torch.equal(outputs.stem, outputs.features[0])


def test_registers_that_would_make_another_square_with_the_tokens_are_told_apart(register):
    """Four tokens of the image and five others are nine."""
    register(lambda grid: with_more(grid.flatten(1, 2), before=5), patch=16)
    network = build_model("grid_for_test", hooks=["arranged"], image_size=32)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images).features[0], network.body.embed(images))


@pytest.mark.parametrize("case", OUT_OF_PLACE)
def test_maps_whose_places_are_not_those_of_the_image_are_refused(case, register):
    register(OUT_OF_PLACE[case])
    with pytest.raises(KdbenchError) as error:
        shapes("grid_for_test", image_shape=(3, 32, 32), num_classes=5, hooks=("arranged",))
    assert str(error.value) == (
        "grid_for_test, hooks: nothing tells where the places of an image are in what 'arranged' gives: its tokens or axes may be "
        "in an unusual order. Name other modules as `hooks`; `kdbench show model grid_for_test --modules` lists those that can be "
        "hooks."
    )
    listed = [entry["module"] for entry in modules_of("grid_for_test", image_shape=(3, 32, 32), num_classes=5)]
    assert listed == ["embed"]


@pytest.mark.parametrize("case", OF_NO_BATCH)
def test_what_is_not_of_the_batch_is_no_map(case, register):
    register(OF_NO_BATCH[case])
    with pytest.raises(KdbenchError, match=r"'arranged' gives .*, neither maps nor a square of tokens; `kdbench show"):
        build_model("grid_for_test", hooks=["arranged"])


def test_tokens_of_images_that_are_no_squares_are_refused(register):
    """Sixteen times four tokens are eight times eight."""
    register(IN_PLACE["tokens, as many as channels squared"])
    with pytest.raises(KdbenchError) as error:
        shapes("grid_for_test", image_shape=(3, 64, 16), num_classes=5, hooks=("arranged",))
    assert str(error.value) == "grid_for_test: its maps are squares of tokens, and these images are not square. Give square images."


def test_finding_places_draws_nothing(register):
    register(IN_PLACE["maps, a cube"])
    before = torch.get_rng_state()
    shapes("grid_for_test", image_shape=(3, 32, 32), num_classes=5, hooks=("arranged",))
    assert torch.equal(torch.get_rng_state(), before)


# timm


TIMM = {
    # what the deepest group is, and the shape of all
    "hiera_tiny_224": ("tokens", "96x56x56 192x28x28 384x14x14 768x7x7"),
    "test_vit3": ("tokens after 1 more", "96x10x10 96x10x10 96x10x10 96x10x10"),
    "deit_tiny_distilled_patch16_224": ("tokens after 2 more", "192x14x14 192x14x14 192x14x14 192x14x14"),
    "levit_128s": ("tokens", "128x14x14 256x7x7 384x4x4"),
    "pit_ti_224": ("maps", "64x27x27 128x14x14 256x7x7"),
    "test_maxvit": ("maps", "32x40x40 64x20x20 96x10x10 128x5x5"),
}


@pytest.mark.parametrize("name", TIMM)
def test_maps_of_timms_networks_are_timms_own(name):
    pytest.importorskip("timm")
    network = build_model(f"timm/{name}").eval()
    size = network.body.default_cfg["input_size"][1]
    images = torch.randn(1, 3, size, size)
    modules = [entry["module"] for entry in network.body.feature_info]
    with torch.no_grad():
        own = dict(zip(modules, network.body.forward_intermediates(images, intermediates_only=True), strict=True))
        ours = network(images).features
    for point, maps in zip(network.wiring.groups, ours, strict=True):
        assert torch.equal(maps, own[point.module])
    layout, expected = TIMM[name]
    assert network.wiring.groups[-1].description == layout
    assert " ".join("x".join(map(str, maps.shape[1:])) for maps in ours) == expected
