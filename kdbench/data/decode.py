"""One image file as a viewer shows it: upright, in sRGB, on white, with eight bits a channel."""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from kdbench.errors import DataError, listed

PIXELS = 2
"""Raise it when the same files would give other pixels."""

NO_PICTURES = {"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"}
"""Formats with a suffix in Pillow that hold documents, drawings, films or measurements, or that Pillow writes alone."""

ALTERING = {"transparency", "icc_profile", "exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""What Pillow's `info` holds where the pixels of a file are not yet what a viewer shows."""

BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and a value of the second."""


MOST_NAMED = 20
"""Files that cannot be read which a message names; of more it tells the number."""


class Unreadable(Exception):
    """A file is no image, or a damaged one, or cannot be shown; the message gives its path and the reason."""


def unreadable_files(problems: Sequence[str]) -> DataError:
    """One error for all files that cannot be read, from a path and a reason for each; several have a line each."""
    lines = listed(problems, separator="\n  ", most=MOST_NAMED)
    told = f"{lines}. " if len(problems) == 1 else f"{len(problems):,} files:\n  {lines}\n"
    return DataError(
        f"cannot read {told}Put each file back as it was; then the same command continues. Or replace or remove it and, if there "
        "are results on these images, give the data set another `label`; what is finished is kept."
    )


def image_suffixes() -> set[str]:
    """Those of the files that are read, in lower case and with the dot: of each format of pictures that Pillow knows."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind not in NO_PICTURES}


def read_image(file: Path, *, channels: int) -> Image.Image:
    """One image, decoded whole, in colour or in grey.

    It is turned as its EXIF orientation says, converted from its colour profile to sRGB, and laid on white where it is transparent.
    Of 16 bits a channel the upper 8 are kept. Of an animation, or a file with many pages, the first one is read. A colour profile
    or EXIF data that are damaged are ignored, as viewers do.

    Raises:
        Unreadable: the file is no image or a damaged one, or it does not say which of its numbers are black and white.
    """
    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(file) as opened:
            opened.load()
            plain = opened.mode in ("RGB", "L") and ALTERING.isdisjoint(opened.info)
            return (opened if plain else _as_shown(opened)).convert(mode)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(f"{file}: Pillow cannot read it as an image") from error
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, ValueError, struct.error and more
        raise Unreadable(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _as_shown(image: Image.Image) -> Image.Image:
    """In mode L or RGB."""
    profile = image.info.get("icc_profile")
    _turn_upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _in_eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if profile and (transform := _to_srgb(profile, image.mode)):
        image = transform.apply(image)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    if alpha is not None:
        paper = Image.new(image.mode, image.size, "white")
        paper.paste(image, mask=alpha)
        return paper
    return image


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # EXIF data come damaged in as many ways as images do
        return


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """From 16 bits in grey to mode L, or LA where one value is transparent."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # these hold 16 bits in 32
        raise ValueError(
            f"its pixels are 32-bit numbers (mode {image.mode}) that do not say what is black and white: save it as an 8-bit .png"
        )
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.uint16)
    shown = (values >> (tags.get(BITS, (16,))[0] - 8)).astype(np.uint8)
    grey = Image.fromarray(~shown if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else shown)
    if "transparency" not in image.info:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))))


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None where it would change nothing, or the profile is damaged or made for another mode."""
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, 16 if mode == "RGB" else 256).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(*[steps] * 3), axis=-1).reshape(-1, 16, 3) if mode == "RGB" else steps[None]
    probe = Image.fromarray(colours)
    change = np.abs(np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB")))
    return transform if change.max() > 1 else None  # sRGB itself comes in profiles that round differently
