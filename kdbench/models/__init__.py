"""The networks of the harness, by name."""

from collections.abc import Sequence
from functools import cache, partial

import torch

from kdbench.errors import KdbenchError
from kdbench.models import foreign, mobilenet, resnet, shufflenet, vgg, wrn  # noqa: F401  # they register their networks
from kdbench.models.hooked import Hooked, prepare
from kdbench.models.network import MODELS as MODELS
from kdbench.models.network import Network as Network
from kdbench.models.network import register_model as register_model
from kdbench.models.recorded import record
from kdbench.models.wiring import Wiring, classifier, wire
from kdbench.streams import streams_kept


def build_model(
    name: str, *, num_classes: int = 10, in_channels: int = 3, hooks: Sequence[str] = (), image_size: int | None = None
) -> Network:
    """A freshly initialised network for `num_classes` classes and images of `in_channels` channels.

    A registered factory gives a `Network` or any other classifier, as torchvision's and timm's are; of the latter, `hooks` names
    the modules with which its groups end, shallow to deep. The usual families of torchvision and timm need none. What its modules
    give is found out on images of `image_size` pixels squared, or of the usual sizes; a library's networks have sizes of their own.

    Raises:
        KdbenchError: nothing of that name; a classifier without hooks, or hooks that it lacks; hooks for a `Network`.
    """
    model = MODELS.get(name)(num_classes=num_classes, in_channels=in_channels)
    if not isinstance(model, Network):
        return Hooked(prepare(model), _wiring(name, in_channels, tuple(hooks), image_size))
    if hooks:
        raise KdbenchError(f"hooks: {name} has its own groups, and others cannot be given. Take `hooks` out.")
    return model


def blank_model(
    name: str, *, num_classes: int, in_channels: int, hooks: Sequence[str] = (), image_size: int | None = None
) -> Network:
    """As `build_model`, on the meta device: names and shapes without numbers.

    Raises:
        KdbenchError: as `build_model`.
    """
    with torch.device("meta"):
        return build_model(name, num_classes=num_classes, in_channels=in_channels, hooks=hooks, image_size=image_size)


@cache  # it takes a few tenths of a second, and every lane builds its network
def _wiring(name: str, in_channels: int, hooks: tuple[str, ...], image_size: int | None) -> Wiring:
    with torch.device("meta"), streams_kept():  # some constructors draw all the same
        body = MODELS.get(name)(num_classes=10, in_channels=in_channels)
    if not hooks and not foreign.is_published(name):
        raise _without_hooks(name, body)
    calls = record(name, prepare(body), in_channels=in_channels, sizes=foreign.sizes(name, body, image_size))
    classifier(name, calls)
    usual = partial(foreign.usual_groups, name, body, calls)
    groups = hooks or usual()
    if not groups:
        raise _without_hooks(name, body)
    return wire(name, calls, groups, usual=usual)


def _without_hooks(name: str, model: object) -> KdbenchError:
    return KdbenchError(
        f"model '{name}' gives a {type(model).__name__}, without hook points. Name the modules with which its groups end, "
        f"from shallow to deep: `hooks: [...]`; `kdbench show model {name} --modules` lists them. "
        "Or derive it from kdbench.models.Network."
    )
