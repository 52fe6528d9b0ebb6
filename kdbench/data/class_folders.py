"""Folders of classes: which image files lie in them, and how many other files are not read."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdbench.data.decode import image_suffixes
from kdbench.errors import KdbenchError, listed

ANNOTATIONS = "val_annotations.txt"
"""Where Tiny-ImageNet's distribution names the classes of its test images."""


@dataclass(frozen=True)
class Listing:
    """The image files of one split, in an order that depends on their names alone.

    Attributes:
        files: their paths below the root.
        labels: of each.
    """

    files: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Folders:
    """What lies below a root.

    Attributes:
        classes: names of the class folders, in order.
        train: the training images.
        test: the test images.
        passed_over: how many files are not read, by reason.
    """

    classes: tuple[str, ...]
    train: Listing
    test: Listing
    passed_over: Mapping[str, int]


def scan(root: Path) -> Folders:
    """List the training and the test images below `root`; looks at no file.

    Raises:
        KdbenchError: a folder is missing, cannot be read or has no image, there are fewer than two classes, or the two splits have
            different ones.
    """
    try:
        return _Scan(root).folders()
    except OSError as problem:
        raise KdbenchError(
            f"{problem.filename} cannot be read ({problem.strerror}). Make it readable, or give another `root`."
        ) from None


def file_sizes(root: Path, files: Iterable[str]) -> tuple[list[int], dict[str, str]]:
    """Of each file below `root`, how many bytes it has; and of those that are empty, gone or not to be read, path and reason."""
    sizes, problems = [], {}
    for file in files:
        path = os.path.join(root, file)
        try:
            sizes.append(os.stat(path).st_size)
        except OSError as problem:
            problems[file] = f"{path}: {problem.strerror}"
            continue
        if not sizes[-1]:
            problems[file] = f"{path}: it is empty"
        elif not os.access(path, os.R_OK):
            problems[file] = f"{path}: you have no right to read it (chmod a+r)"
    return sizes, problems


class _Scan:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.suffixes = image_suffixes()
        self.passed_over: Counter[str] = Counter()

    def folders(self) -> Folders:
        root = self.root
        if not root.is_dir():
            raise KdbenchError(f"root: there is no folder {root}; give one that holds train/<class>/ and test/<class>/.")
        held_out = [name for name in ("test", "val") if (root / name).is_dir()]
        if not (root / "train").is_dir() or not held_out:
            missing = "test/ or val/" if (root / "train").is_dir() else "train/"
            raise KdbenchError(f"{root} has no folder {missing}; arrange the images as train/<class>/ and test/<class>/.")
        test_split = next((name for name in held_out if self._has_labels(name)), held_out[0])
        for unused in (name for name in held_out if name != test_split):
            files_there = sum(len(files) for *_, files in os.walk(root / unused))
            self.passed_over[f"{unused}/: not used beside {test_split}/"] = files_there
        classes = self._classes("train")
        if len(classes) < 2:
            raise KdbenchError(f"{root / 'train'} has only one class folder, {classes[0]}/; add a second class.")
        train = self._by_class("train", classes)
        if self._is_annotated(test_split):
            test = self._annotated(test_split, classes)
        elif difference := sorted({*classes} ^ {*self._classes(test_split)}):
            raise KdbenchError(
                f"{root / 'train'} and {root / test_split} differ in their class folders: only one of them has "
                f"{listed(difference)}; give both the same."
            )
        else:
            test = self._by_class(test_split, classes)
        return Folders(classes, train, test, self.passed_over)

    def _has_labels(self, split: str) -> bool:
        """Whether it has class folders; images/ alone, as in Tiny-ImageNet's test/, is none."""
        return self._is_annotated(split) or _folders(self.root / split) not in ([], ["images"])

    def _is_annotated(self, split: str) -> bool:
        """Whether it is Tiny-ImageNet's val/ as it is unpacked."""
        return (self.root / split / ANNOTATIONS).is_file() and _folders(self.root / split) == ["images"]

    def _classes(self, split: str) -> tuple[str, ...]:
        folder = self.root / split
        names = _folders(folder)
        if not names:
            raise KdbenchError(f"{folder} has no class folders; arrange the images as {split}/<class>/.")
        for name in names:
            if os.fsencode(name).decode(errors="replace") != name:
                raise KdbenchError(
                    f"the name of the class folder {os.fsencode(name)!r} in {folder} is not UTF-8, and records and tables show it; "
                    "rename the folder."
                )
        return tuple(names)

    def _by_class(self, split: str, classes: tuple[str, ...]) -> Listing:
        """The images in class folders and in the folders below these, as torchvision's ImageFolder reads them."""
        self._pass_over_files_beside_folders(split)
        files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            before = self.passed_over.copy()
            images = _in_order(self._images(split, name))
            if not images:
                counts = [f"{count:,} {reason.partition(': ')[2]}" for reason, count in (self.passed_over - before).items()]
                others = f" (skipped: {listed(counts)})" if counts else ""
                raise KdbenchError(
                    f"{self.root / split / name} has no image{others}; add some as .png or .jpg, or remove the folder."
                )
            files += images
            labels += [label] * len(images)
        return Listing(tuple(files), tuple(labels))

    def _annotated(self, split: str, classes: tuple[str, ...]) -> Listing:
        """Tiny-ImageNet's test images: images/*, their classes in a file of lines that begin with a name and a class."""
        self._pass_over_files_beside_folders(split)
        annotations = self.root / split / ANNOTATIONS
        lines = map(os.fsdecode, annotations.read_bytes().splitlines())
        named = dict(line.split("\t")[:2] for line in lines if "\t" in line)
        number = {name: label for label, name in enumerate(classes)}
        images = _in_order(self._images(split, "images"))
        if strangers := [file for file in images if named.get(Path(file).name) not in number]:
            raise KdbenchError(
                f"{annotations} gives {listed(strangers)} no class that {self.root / 'train'} has; unpack the archive again, or "
                f"arrange the images as {split}/<class>/."
            )
        if not images:
            raise KdbenchError(f"{self.root / split / 'images'} has no image; unpack the archive again.")
        return Listing(tuple(images), tuple(number[named[Path(file).name]] for file in images))

    def _images(self, split: str, below: str) -> Iterator[str]:
        """Paths below the root of the images in the folder `split`/`below` and the folders below it."""
        folder = f"{split}/{below}"
        for entry in os.scandir(self.root / folder):
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                self.passed_over[f"{split}/: hidden"] += 1
            elif entry.is_dir():
                if entry.is_symlink() and (self.root / folder).resolve().is_relative_to(Path(entry.path).resolve()):
                    self.passed_over[f"{split}/: a link to a folder above it"] += 1
                else:
                    yield from self._images(split, f"{below}/{entry.name}")
            elif suffix not in self.suffixes:
                known = suffix if re.fullmatch(r"\.[a-z][a-z0-9]{0,7}", suffix) else "no suffix"
                self.passed_over[f"{split}/: unknown type ({known})"] += 1
            else:
                yield f"{folder}/{entry.name}"

    def _pass_over_files_beside_folders(self, split: str) -> None:
        stray = [entry.name for entry in os.scandir(self.root / split) if entry.name.startswith(".") or not entry.is_dir()]
        if count := len({*stray} - {ANNOTATIONS}):
            self.passed_over[f"{split}/: in no class folder"] = count


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _in_order(files: Iterable[str]) -> list[str]:
    """Folder by folder, as torchvision's ImageFolder has them."""
    return sorted(files, key=os.path.split)
