"""Whether students of one architecture can be stacked: it is tried out, on the device and in the arithmetic of the training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from kdbench.data.views import QUARTER_TURNS
from kdbench.errors import first_line
from kdbench.method.interface import METHODS
from kdbench.models import Network
from kdbench.models.stacked import Stacked
from kdbench.models.stacked_layers import LAYERS, PLACES
from kdbench.spec.recipe import Recipe
from kdbench.spec.trial import TrialSpec
from kdbench.streams import seeded
from kdbench.training.arithmetic import arranged, autocast
from kdbench.training.builder import Builder
from kdbench.training.compiled import Compiled
from kdbench.training.device import exact
from kdbench.training.fatal_errors import fatal_error

TOLERANCE = 1e-9
"""Relative, in float64: networks that stacked give anything else than alone by more cannot be stacked."""

TRIED = 16
"""Images of that pass: where maps have one place, a batch norm of few images blows rounding up."""

DIFFERENT = "beside others, it does not give what it gives alone"
LEAKS = "here, NaN in one student would reach another, as kernels go for its numbers of channels in {precision}"

NO_KERNEL = re.compile(
    "unable to find an engine|no valid execution plans|no execution plans|no valid engine configs"
    "|no (valid|deterministic) convolution algorithms|unable to find a valid cudnn algorithm|(CUDNN|CUBLAS)_STATUS_NOT_SUPPORTED"
    "|could not create a primitive|does not have a deterministic implementation|not implemented for '",
    re.IGNORECASE,
)
"""In torch's words: the device has no kernel for it, or none that repeats."""

ON_CPU = 8
"""Images that are tried at once on the CPU, where how many there are chooses no kernel."""


def why_not_stacked(builder: Builder, trial: TrialSpec) -> str | None:
    """Why the student of a trial cannot be stacked on the builder's device, in half a sentence; None where it can.

    Args:
        builder: of the data set, which may be without its images.
        trial: gives the network and how it is trained.
    """
    recipe = trial.recipe
    build = partial(builder.network, *trial.network, precision=recipe.precision)
    for name, layer in build().named_modules():
        if [*layer.parameters(recurse=False), *layer.buffers(recurse=False)] and type(layer) not in LAYERS:
            what = f"its layer {name} is a {type(layer).__name__}" if name else "it has numbers of its own, such as a normalisation"
            return f"{what}, and only convolutions, batch norms and linear layers can be"
    shape, device = builder.dataset.image_shape, builder.device
    if not _equal_in_float64(build, shape):
        return DIFFERENT
    fewer = device.type == "cpu" and not recipe.compile  # each number of images is another compilation, which training uses, too
    sizes = {min(size, ON_CPU) if fewer else size for size in passed(builder, trial)}
    with exact(device, precision=recipe.precision, image_shape=shape):
        try:
            isolated = all(_isolated(build, (size, *shape), device, recipe) for size in sorted(sizes))
        except RuntimeError as problem:
            if fault := fatal_error(problem):
                raise fault from None
            if not NO_KERNEL.search(str(problem)):
                raise
            return f"here, a step of it cannot be computed in {recipe.precision} ({first_line(problem)})"
        finally:
            torch.cuda.empty_cache()  # the memory is for those that train, which may be other processes
    return None if isolated else LEAKS.format(precision=recipe.precision)


def passed(builder: Builder, trial: TrialSpec) -> set[int]:
    """How many images the student takes at once: those of whole and of last batches, and of their rotations where it sees them."""
    sizes = {*builder.batch_sizes(trial.recipe)}
    turned = any("rotations" in METHODS.get(part.name).views for part in trial.methods)
    return sizes | {len(QUARTER_TURNS) * size for size in sizes if turned}


def _equal_in_float64(build: Callable[[], Network], image_shape: tuple[int, int, int]) -> bool:
    """Whether two networks give the same stacked as alone, but for rounding, and remember the same."""
    with seeded(0, "stackable"):
        networks = [build().cpu().double().train() for _ in range(2)]
        images = torch.randn(TRIED, *image_shape, dtype=torch.float64)
    alone = deepcopy(networks)
    try:
        with torch.no_grad(), seeded(0, "stackable", "pass"):
            expected = [network(images) for network in alone]
            made = [cut.outputs for cut in Stacked(networks)(images)]
        pairs = [*zip(expected, made, strict=True)]
        outputs = all(_agree(one.tensors(), other.tensors()) for one, other in pairs)
        return outputs and all(_agree(one.buffers(), other.buffers()) for one, other in zip(alone, networks, strict=True))
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError):  # whatever its layers do not take
        return False


def _agree(expected: Iterable[Tensor], ours: Iterable[Tensor]) -> bool:
    pairs = zip(expected, ours, strict=True)
    return all(bool((one - other).abs().max() <= TOLERANCE * one.abs().max().clamp(min=1)) for one, other in pairs)


def _isolated(build: Callable[[], Network], shape: tuple[int, ...], device: torch.device, recipe: Recipe) -> bool:
    """Whether a step of a network is bitwise the same alone and beside networks full of NaN, for images (B, C, H, W)."""

    def network(*, broken: bool = False) -> Network:
        with seeded(0, "stackable"):
            made = build().train()
        for parameter in made.parameters() if broken else ():
            torch.nn.init.constant_(parameter, math.nan)
        return made

    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = arranged(images.to(device, memory_format=torch.channels_last), precision=recipe.precision)
    alone, beside = [network()], [network(broken=i != PLACES // 2) for i in range(PLACES)]
    return all(map(torch.equal, _step(alone, 0, images, recipe), _step(beside, PLACES // 2, images, recipe)))


def _step(networks: Sequence[Network], place: int, images: Tensor, recipe: Recipe) -> list[Tensor]:
    """What the network at a place gives in a pass, the gradients that it gets, and what it remembers."""
    stacked = Stacked(networks, compiled=Compiled if recipe.compile else None)
    with autocast(images.device, precision=recipe.precision):
        stacked.prepare(images)
        cuts = stacked(images)
    gradients = [torch.ones_like(part) if i == place else part.detach() for i, cut in enumerate(cuts) for part in cut.parts]
    torch.autograd.backward([part for cut in cuts for part in cut.parts], gradients)
    own = networks[place]
    return [*cuts[place].outputs.tensors(), *(p.grad for p in own.parameters() if p.grad is not None), *own.buffers()]
