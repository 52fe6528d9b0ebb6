"""The networks of the harness, by name."""

import getpass
import os
import tempfile
from collections.abc import Collection, Sequence
from functools import cache, partial

import torch

from kdbench.errors import KdbenchError
from kdbench.models import foreign, mobilenet, resnet, shufflenet, swin, vgg, wrn  # noqa: F401  # they register their networks
from kdbench.models.construct import constructed
from kdbench.models.hooked import Hooked, prepare
from kdbench.models.network import MODELS as MODELS
from kdbench.models.network import Network as Network
from kdbench.models.network import modules_command
from kdbench.models.network import register_model as register_model
from kdbench.models.places import asked, tried
from kdbench.models.recorded import Call, Point, record
from kdbench.models.wiring import Wiring, candidates, refuse_other_outputs, wire
from kdbench.spec.trial import RAW
from kdbench.streams import seeded, streams_kept


def _name_compile_cache() -> None:
    """torch 2.11 names it after the user, and fails in a container where the user is a number alone. Later ones do this."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"torchinductor_uid_{os.getuid()}"))


_name_compile_cache()


def build_model(
    name: str, *, num_classes: int = 10, in_channels: int = 3, hooks: Sequence[str] = (), image_size: int | None = None
) -> Network:
    """A freshly initialised network for `num_classes` classes and images of `in_channels` channels.

    A registered factory gives a `Network` or any other classifier, as torchvision's and timm's are. Of the latter, `hooks` names
    the modules with which its groups end, shallow to deep; of kdbench's own, the blocks. Those need none, nor do the usual families
    of torchvision and timm, nor a classifier in which no module gives maps. What its modules give is found out on images of
    `image_size` pixels squared, or of the usual sizes; a library's networks have sizes of their own. With `hooks` that are `RAW`,
    the groups are the usual ones, and are read before the norm and the activation that follow them.

    Raises:
        KdbenchError: nothing of that name; what its library refuses to build; a classifier without hooks, hooks that it lacks, or
            hooks whose maps cannot be told; hooks for a `Network` with groups of its own.
    """
    raw = tuple(hooks) == RAW
    ends = () if raw else tuple(hooks)
    model = constructed(name, num_classes=num_classes, in_channels=in_channels)
    if not isinstance(model, Network):
        model = Hooked(prepare(model), _wiring(name, in_channels, ends, image_size))
    elif ends:
        model.end_groups(name, ends)
    model.reads_raw = raw
    return model


def blank_model(
    name: str, *, num_classes: int, in_channels: int, hooks: Sequence[str] = (), image_size: int | None = None
) -> Network:
    """As `build_model`, on the meta device: names and shapes without numbers. The global streams stay as they are.

    Raises:
        KdbenchError: as `build_model`.
    """
    with torch.device("meta"), streams_kept():
        return build_model(name, num_classes=num_classes, in_channels=in_channels, hooks=hooks, image_size=image_size)


@cache  # it takes a few tenths of a second and more, and every lane builds its network
def _wiring(name: str, in_channels: int, hooks: tuple[str, ...], image_size: int | None) -> Wiring:
    with torch.device("meta"), streams_kept():  # some constructors draw all the same
        body = prepare(constructed(name, in_channels=in_channels))
    calls = record(name, body, in_channels=in_channels, sizes=foreign.sizes(name, body, image_size))
    refuse_other_outputs(name, calls)
    usual = partial(foreign.usual_groups, name, body, calls)
    groups = hooks or usual()
    if not groups and candidates(calls):
        raise _without_hooks(name, body)
    wiring = wire(name, calls, groups, usual=usual)
    modules = {point.module for point in wiring.groups} if foreign.is_published(name) else wiring.modules
    doubted = {call.name for call in calls if call.name in modules and (hooks or foreign.in_doubt(name, call))}
    return wiring.placed(name, doubted, placed(name, calls, doubted)) if doubted else wiring


def placed(name: str, calls: Sequence[Call], modules: Collection[str]) -> dict[str, Point]:
    """How the outputs of modules become maps, for sure; without the modules of which that cannot be told.

    Args:
        name: of the model.
        calls: what `record` gives.
        modules: their names.
    """
    twin, images = calls[-1].module, calls[-1].read
    readings = {call.name: call.readings for call in calls if call.name in modules and call.readings}
    with torch.device("cpu"), seeded(0, "places"):  # whatever is blank around it
        known = asked(twin, readings, images)
        if readings := {module: points for module, points in readings.items() if module not in known}:
            body = prepare(constructed(name, in_channels=images.shape[1])).eval()
            known |= tried(body, readings, image_shape=tuple(images.shape[1:]))
    return known


def _without_hooks(name: str, model: object) -> KdbenchError:
    return KdbenchError(
        f"model '{name}' gives a {type(model).__name__}, without hook points. Name the modules with which its groups end, "
        f"from shallow to deep: `hooks: [...]`; {modules_command(name)} lists them. "
        "Or derive it from kdbench.Network."
    )
