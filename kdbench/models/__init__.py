"""The networks of the harness, by name."""

from kdbench.errors import KdbenchError
from kdbench.models import mobilenet, resnet, shufflenet, vgg, wrn  # noqa: F401  # they register their networks
from kdbench.models.network import MODELS as MODELS
from kdbench.models.network import Network as Network
from kdbench.models.network import register_model as register_model


def build_model(name: str, *, num_classes: int = 10, in_channels: int = 3) -> Network:
    """A freshly initialised network for `num_classes` classes and images of `in_channels` channels.

    Raises:
        KdbenchError: nothing of that name, or what it names is not a `Network`.
    """
    model = MODELS.get(name)(num_classes=num_classes, in_channels=in_channels)
    if not isinstance(model, Network):
        raise KdbenchError(
            f"model '{name}' gives a {type(model).__name__}, without hook points. Derive it from kdbench.models.Network."
        )
    return model
