"""What `kdbench show` prints but for networks: the value that `--json` gives, and the text for people."""

from contextlib import suppress
from pathlib import Path

from kdbench.catalogue import settings
from kdbench.catalogue.images import contents_as_json, contents_of
from kdbench.catalogue.method import method_as_text
from kdbench.catalogue.text import Value, as_yaml_line
from kdbench.data import DATASETS
from kdbench.data.decode import Unreadable, read_image
from kdbench.data.imagefolder import ImageFolder
from kdbench.errors import KdbenchError, nearest
from kdbench.method.description import describe_method
from kdbench.paths import expanded
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import example_names, shipped

CACHE = Path("results") / "cache"
"""Where a source may find what it computed before."""


def shown(what: str, name: str) -> tuple[Value, str]:
    """A `method`, `dataset` (or a folder of images), `suite`, `recipe` or `example`, as a value and as text.

    Raises:
        KdbenchError: nothing of that name.
    """
    return {"method": _method, "dataset": _dataset, "suite": _suite, "recipe": _recipe, "example": _example}[what](name)


def _method(name: str) -> tuple[Value, str]:
    described = describe_method(name)
    return described, method_as_text(described)


def _suite(name: str) -> tuple[Value, str]:
    suite = load_suite(name)
    contents = contents_of(suite.source, cache=CACHE, tuning=suite.tuning)
    return settings.suite_as_json(suite, contents), settings.suite_as_text(suite, contents)


def _recipe(name: str) -> tuple[Value, str]:
    return settings.recipe_as_json(name), settings.recipe_as_text(name)


def _dataset(name: str) -> tuple[Value, str]:
    if name not in DATASETS and expanded(name).is_dir():
        return _folder(name)
    if name not in DATASETS and "/" in name:
        raise KdbenchError(
            f"there is no folder {expanded(name).resolve()}. Give one of images, or a name of `kdbench list datasets`."
        )
    kind = DATASETS.get(name)
    needs = any(field.is_required() for field in kind.Params.model_fields.values())
    contents = None if needs else contents_of((kind, kind.Params()), cache=CACHE)
    return settings.dataset_as_json(name, contents), settings.dataset_as_text(name, contents)


def _folder(name: str) -> tuple[Value, str]:
    """The images of a folder, as imagefolder and imagestream see them."""
    asked = {"label": expanded(name).resolve().name, "root": name, "size": 64}
    source = ImageFolder(ImageFolder.Params.model_validate(asked | {"root": expanded(name)}), cache=CACHE)
    contents = source.contents()
    lines = settings.images_as_lines(contents)
    file = source.folders.train.files[0]
    with suppress(Unreadable):  # `run` names every such file
        width, height = read_image(source.root / file, channels=3).size
        lines.append(f"the first image, {file}, has {width}x{height} pixels")
        asked["size"] = min(64, width, height)
    suite = f"dataset: {as_yaml_line({'name': 'imagefolder', **asked})}"
    data = {key: value for key, value in (contents_as_json(contents) or {}).items() if key != "image_shape"}
    return {"name": name, "data": data}, "\n".join([*lines, f"in a suite: {suite}"])


def _example(name: str) -> tuple[Value, str]:
    names = example_names()
    if name not in names:
        raise KdbenchError(f"unknown example '{name}'.{nearest(name, names)} See `kdbench list examples`.")
    file = shipped("examples") / name
    text = file.read_text(encoding="utf-8")
    return {"name": name, "file": str(file), "text": text}, text.rstrip("\n")
