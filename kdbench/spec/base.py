"""The base of everything that enters a trial's identity."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Spec(BaseModel):
    """Base of everything that enters a trial's identity: frozen, and a misspelt key is an error.

    The text under a field describes it: the reference pages and `kdbench show` print it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class SpecWithOptions(Spec):
    """A spec with fields that are part of it only where they are used, so that the identity of other trials does not know them.

    Attributes:
        optional: the fields that are left out where they have their default.
    """

    optional: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused_options(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = type(self).model_fields
        unused = {name for name in self.optional if getattr(self, name) == fields[name].get_default()}
        return {name: value for name, value in written.items() if name not in unused}
