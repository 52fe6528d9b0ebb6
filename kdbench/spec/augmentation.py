"""How training images are varied."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from kdbench.spec.base import Spec, SpecWithOptions


class ResizedCrop(SpecWithOptions):
    """A random part of the image is resized to the data set's size, antialiased: torchvision's `RandomResizedCrop`."""

    optional = frozenset({"interpolation"})

    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Smallest and largest share of the image's area that the part has."""
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Smallest and largest width of the part, divided by its height."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    """How the part is resized. With `random` one of the other two is chosen for each image."""

    @model_validator(mode="after")
    def _bounds_ascend(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale: give the lower bound, then the upper one, at most 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio: give the lower bound, then the upper one")
        return self


class RandAugment(Spec):
    """A few operations on colour and place, drawn at random for each image. Cubuk et al., 2020, arXiv:1909.13719.

    It runs on the CPU, image by image.
    """

    name: Literal["torchvision", "timm", "fixmatch"] = "torchvision"
    """Whose it is. `torchvision`: 14 operations, all of one magnitude. `timm`: 15 operations, each done with probability 1/2, as
    papers on transformers have it; it needs timm. `fixmatch`: 14 operations of any strength, then a grey square of up to half the
    image's width, as the code of Multi-level Logit Distillation has it."""
    layers: PositiveInt = 2
    """How many operations an image goes through."""
    magnitude: int = Field(9, ge=0, le=30)
    """How strong the operations are: 0 to 30 in torchvision, 0 to 10 in timm. No effect in `fixmatch`."""
    magnitude_std: NonNegativeFloat = 0
    """Of timm: the standard deviation of the magnitude, which is drawn for each operation. 0 for the same always."""
    increasing: bool = False
    """Of timm: whether every operation becomes stronger as the magnitude grows."""

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> Self:
        if self.name != "timm" and (self.magnitude_std or self.increasing):
            raise ValueError("magnitude_std and increasing are keys of timm's RandAugment; write `name: timm`, or remove them")
        if self.name == "timm" and self.magnitude > 10:
            raise ValueError("timm's magnitudes end at 10; give a magnitude of at most 10")
        if self.name == "fixmatch" and self.magnitude != RandAugment.model_fields["magnitude"].default:
            raise ValueError("magnitude has no effect in fixmatch, which draws it for each operation; remove it")
        return self


class StrongAugmentation(Spec):
    """What the view `strong` shows to the methods that ask for it.

    The image is cropped and flipped as the recipe says, anew. Then follows what stands here, in place of the recipe's own.
    """

    rand_augment: RandAugment | None = RandAugment(name="fixmatch")
    """Operations on colour and place. `null` for none."""
    random_erasing: float = Field(0.0, ge=0, le=1)
    """Probability with which a rectangle of the image is filled with noise."""


class Augmentation(SpecWithOptions):
    """How training images are varied. Images in memory are padded and cropped; streamed ones take a `resized_crop`."""

    optional = frozenset({"resized_crop", "rand_augment", "random_erasing", "strong"})

    pad: NonNegativeInt = 4
    """Pixels that are added on each side, before a crop of the image's own size is taken at a random place. 0 for no crop. Streamed
    images need 0."""
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What the added pixels show: black, or the image mirrored at its border."""
    flip: bool = True
    """Whether images are flipped left to right with probability 1/2. Turn it off where a mirrored image is of another class."""
    resized_crop: ResizedCrop | None = None
    """For streamed images, the random part that is taken and resized. None, the default, takes the centre."""
    rand_augment: RandAugment | None = None
    """Operations on colour and place, after crop and flip. None unless given."""
    random_erasing: float = Field(0.0, ge=0, le=1)
    """Probability with which a rectangle of the image, 2 % to 33 % of its area, is filled with noise: torchvision's
    `RandomErasing` on the normalised image. Zhong et al., 2020, arXiv:1708.04896."""
    strong: StrongAugmentation = StrongAugmentation()
    """What the view `strong` shows. It concerns only methods that ask for this view."""

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Self:
        if self.resized_crop and self.pad:
            raise ValueError("pad has no effect beside resized_crop; give `pad: 0` with it")
        return self
