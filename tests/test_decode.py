"""What is made of one image file: what a viewer shows, in every mode that Pillow opens, or a refusal."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from kdbench.data import ImageFolder, ImageStream, StreamedLoader
from kdbench.data.decode import Unreadable, read_image

Pixels = npt.NDArray[np.uint8]

SIZE = 8
RANDOM = np.random.default_rng(0)
COLOUR, GREY, ALPHA = (RANDOM.integers(0, 256, (SIZE, SIZE, *depth), dtype=np.uint8) for depth in ((3,), (), ()))
DEEP = GREY.astype(np.uint16) << 8 | ALPHA  # of 16 bits, with GREY in the upper ones


def on_white(colours: Pixels, alpha: Pixels = ALPHA) -> Pixels:
    alpha = alpha.reshape(SIZE, SIZE, *[1] * (colours.ndim - 2)) / 255
    return (colours * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def save(image: Image.Image, file: Path, **options: object) -> None:
    image.save(file, **options)


def coloured() -> Image.Image:
    return Image.fromarray(COLOUR)


def grey() -> Image.Image:
    return Image.fromarray(GREY)


def transparent(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(ALPHA))
    return image


def palette() -> Image.Image:
    """Of GREY's values, the colour that is 255 minus the value, twice that and thrice that."""
    image = Image.fromarray(GREY)
    image.putpalette(PALETTE.tobytes())
    return image


PALETTE = np.stack([255 - np.arange(256), np.arange(256) * 2 % 256, np.arange(256) * 3 % 256], axis=1).astype(np.uint8)


def png(file: Path, *, kind: int, samples: npt.NDArray[np.uint16], **chunks: bytes) -> None:
    """With 16 bits a channel, which Pillow writes in grey alone."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 16, kind, 0, 0, 0))
        + b"".join(chunk(name.encode(), content) for name, content in chunks.items())
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def tiff(file: Path, *, bits: int, photometric: int, content: bytes) -> None:
    """In grey and one strip, such as Pillow does not write."""
    shorts = (
        (256, SIZE),
        (257, SIZE),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, SIZE),
        (279, len(content)),
    )
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in shorts)
    file.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(shorts)) + tags + bytes(4))


def twelve_bits() -> bytes:
    """The upper 12 bits of DEEP, packed."""
    pairs = (DEEP >> 4).reshape(-1, 2).tolist()
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


def animated(file: Path, **options: object) -> None:
    coloured().save(file, save_all=True, append_images=[grey().convert("RGB")], **options)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED_IS_BLUE = SRGB.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
SRGB_ROUNDED_OTHERWISE = SRGB.replace(struct.pack(">i", round(2.4 * 65536)), struct.pack(">i", round(2.42 * 65536)))
GAMMA = 1.8
OF_GREY = bytearray(SRGB.replace(b"rTRC", b"kTRC"))
"""A profile of grey whose light is the value to the power of GAMMA."""
OF_GREY[16:20] = b"GRAY"
curve = OF_GREY.index(b"para")
OF_GREY[curve : curve + 14] = b"curv" + struct.pack(">IIH", 0, 1, round(GAMMA * 256))


def from_gamma(values: Pixels) -> Pixels:
    light = (values / 255) ** GAMMA
    return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).round().astype(np.uint8)


CASES: dict[str, tuple[Callable[[Path], object], Pixels]] = {
    "plain colour.png": (lambda file: save(coloured(), file), COLOUR),
    "plain colour.ppm": (lambda file: save(coloured(), file), COLOUR),
    "plain grey.tif": (lambda file: save(grey(), file), GREY),
    "black and white.png": (lambda file: save(grey().convert("1", dither=0), file), np.where(GREY > 127, 255, 0)),
    "two values, one transparent.png": (
        lambda file: save(grey().convert("1", dither=0), file, transparency=0),
        np.full_like(GREY, 255),
    ),
    "16 bits.png": (lambda file: save(Image.fromarray(DEEP), file), GREY),
    "16 bits.tif": (lambda file: save(Image.fromarray(DEEP), file), GREY),
    "16 bits, packed.tif": (lambda file: save(Image.fromarray(DEEP), file, compression="tiff_lzw"), GREY),
    "16 bits.pgm": (lambda file: file.write_bytes(b"P5 8 8 65535\n" + DEEP.astype(">u2").tobytes()), GREY),
    "16 bits.jp2": (lambda file: save(Image.fromarray(DEEP), file), GREY),
    "16 bits, upper byte first.tif": (
        lambda file: save(Image.frombytes("I;16B", (SIZE, SIZE), DEEP.astype(">u2").tobytes()), file),
        GREY,
    ),
    "16 bits, white is zero.tif": (
        lambda file: tiff(file, bits=16, photometric=0, content=DEEP.astype("<u2").tobytes()),
        255 - GREY,
    ),
    "12 bits.tif": (lambda file: tiff(file, bits=12, photometric=1, content=twelve_bits()), GREY),
    "16 bits, one value transparent.png": (
        lambda file: png(file, kind=0, samples=DEEP, tRNS=struct.pack(">H", DEEP[0, 0])),
        np.where(DEEP[0, 0] == DEEP, 255, GREY),
    ),
    "16 bits, colour.png": (
        lambda file: png(file, kind=2, samples=COLOUR.astype(np.uint16).reshape(SIZE, -1) << 8 | 77),
        COLOUR,
    ),
    "transparent colour.png": (lambda file: save(transparent(coloured()), file), on_white(COLOUR)),
    "transparent colour.tif": (lambda file: save(transparent(coloured()), file), on_white(COLOUR)),
    "transparent colour.webp": (lambda file: save(transparent(coloured()), file, lossless=True, exact=True), on_white(COLOUR)),
    "transparent grey.png": (lambda file: save(transparent(grey()), file), on_white(GREY)),
    "one transparent colour.png": (
        lambda file: save(coloured(), file, transparency=tuple(COLOUR[0, 0].tolist())),
        np.where((COLOUR[0, 0] == COLOUR).all(-1, keepdims=True), 255, COLOUR),
    ),
    "one transparent grey.png": (
        lambda file: save(grey(), file, transparency=int(GREY[0, 0])),
        np.where(GREY[0, 0] == GREY, 255, GREY),
    ),
    "palette.png": (lambda file: save(palette(), file), PALETTE[GREY]),
    "palette, one transparent.gif": (
        lambda file: save(palette(), file, transparency=int(GREY[0, 0])),
        np.where((GREY[0, 0] == GREY)[..., None], 255, PALETTE[GREY]),
    ),
    "palette, all transparent.png": (
        lambda file: save(palette(), file, transparency=bytes(range(256))),
        on_white(PALETTE[GREY], GREY),
    ),
    "palette and transparency.tif": (
        lambda file: save(transparent(palette().convert("PA")), file),
        on_white(PALETTE[GREY]),
    ),
    "four inks.tif": (lambda file: save(coloured().convert("CMYK"), file), COLOUR),
    "an animation.gif": (lambda file: animated(file), COLOUR),
    "an animation.png": (lambda file: animated(file), COLOUR),
    "an animation.webp": (lambda file: animated(file, lossless=True), COLOUR),
    "pages.tif": (lambda file: animated(file), COLOUR),
    "sRGB profile.png": (lambda file: save(coloured(), file, icc_profile=SRGB), COLOUR),
    "sRGB profile that rounds otherwise.png": (lambda file: save(coloured(), file, icc_profile=SRGB_ROUNDED_OTHERWISE), COLOUR),
    "damaged profile.png": (lambda file: save(coloured(), file, icc_profile=b"damaged"), COLOUR),
    "profile of another mode.png": (lambda file: save(grey(), file, icc_profile=RED_IS_BLUE), GREY),
    "damaged EXIF.png": (lambda file: save(coloured(), file, exif=b"Exif\0\0damaged"), COLOUR),
}


@pytest.mark.parametrize("name", CASES)
def test_an_image_is_read_as_a_viewer_shows_it(name, tmp_path):
    write, expected = CASES[name]
    write(tmp_path / name)
    in_colour, in_grey = (read_image(tmp_path / name, channels=channels) for channels in (3, 1))
    assert (in_colour.mode, in_grey.mode) == ("RGB", "L")
    shown = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=-1)
    # What is laid on white is a quotient that Pillow and numpy round each in its own way.
    assert np.abs(np.asarray(in_colour).astype(int) - shown).max() <= ("transparent " in name or "transparency" in name)
    assert np.array_equal(np.asarray(in_grey), np.asarray(in_colour.convert("L")))


ORIENTATIONS: list[Callable[[Pixels], Pixels]] = [
    lambda image: image,
    lambda image: image[:, ::-1],
    lambda image: image[::-1, ::-1],
    lambda image: image[::-1],
    lambda image: image.swapaxes(0, 1),
    lambda image: np.rot90(image, -1),
    lambda image: image[::-1, ::-1].swapaxes(0, 1),
    lambda image: np.rot90(image),
]
"""From what a file holds to what it shows, by the value of EXIF's tag."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_an_image_is_turned_as_its_exif_says(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x112] = orientation
    file = tmp_path / f"turned.{suffix}"
    held = COLOUR[:5]
    Image.fromarray(held).save(file, exif=exif, lossless=True)
    assert np.array_equal(np.asarray(read_image(file, channels=3)), ORIENTATIONS[orientation - 1](held))


@pytest.mark.parametrize("image", [coloured(), transparent(coloured())])
def test_colours_of_another_profile_become_those_of_srgb(image, tmp_path):
    image.save(tmp_path / "swapped.png", icc_profile=RED_IS_BLUE)
    shown = COLOUR[..., ::-1] if image.mode == "RGB" else on_white(COLOUR[..., ::-1])
    assert np.abs(np.asarray(read_image(tmp_path / "swapped.png", channels=3)).astype(int) - shown).max() <= 2


@pytest.mark.parametrize("image", [grey(), transparent(grey())])
def test_greys_of_another_profile_become_those_of_srgb(image, tmp_path):
    image.save(tmp_path / "gamma.png", icc_profile=bytes(OF_GREY))
    shown = from_gamma(GREY) if image.mode == "L" else on_white(from_gamma(GREY))
    assert np.abs(from_gamma(GREY).astype(int) - GREY).max() > 10
    assert np.abs(np.asarray(read_image(tmp_path / "gamma.png", channels=1)).astype(int) - shown).max() <= 2


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("floats.tif", DEEP.astype(np.float32)),
        ("integers.tif", DEEP.astype(np.int32)),
    ],
)
def test_numbers_without_a_known_black_and_white_are_refused(name, values, tmp_path):
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(Unreadable) as caught:
        read_image(tmp_path / name, channels=1)
    mode = "F" if name.startswith("floats") else "I"
    told = f"its pixels are 32-bit numbers (mode {mode}) that do not say what is black and white: save it as an 8-bit .png"
    assert str(caught.value) == f"{tmp_path / name}: {told}"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no image", "Pillow cannot read it as an image"), (None, "image file is truncated")]
)
def test_what_is_no_whole_image_is_told_in_a_few_words(content, reason, tmp_path):
    file = tmp_path / "broken.png"
    coloured().resize((200, 200)).save(file)
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(Unreadable, match=reason) as caught:
        read_image(file, channels=3)
    assert str(caught.value).count(str(file)) == 1


def test_memory_that_is_full_is_no_damage_of_a_file(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    coloured().save(tmp_path / "whole.png")
    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "whole.png", channels=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_and_streamed_ones_are_the_same(channels, tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for name, (write, _) in CASES.items():
                write(tmp_path / split / label / name)
    shared = {
        "root": tmp_path,
        "label": "modes",
        "size": SIZE,
        "channels": channels,
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
    }
    held = ImageFolder(ImageFolder.Params(**shared), cache=tmp_path / "cache").load()
    data = ImageStream(ImageStream.Params(**shared, resize=SIZE, workers=0), cache=tmp_path).load()
    streamed = StreamedLoader(data.train, mean=data.mean, std=data.std, device="cpu").first(len(data.train))
    assert len(held.train) == 2 * len(CASES)
    assert np.array_equal(held.train.images, streamed.mul(255).round().byte().permute(0, 2, 3, 1))
