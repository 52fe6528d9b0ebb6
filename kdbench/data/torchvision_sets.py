"""Data sets that torchvision downloads and reads."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch
from pydantic import Field

from kdbench.data.dataset import Contents, Dataset, Split
from kdbench.data.division import refuse_division
from kdbench.data.source import Source, SourceParams, register_dataset
from kdbench.errors import KdbenchError


class TorchvisionSource(Source):
    """Any data set of `torchvision.datasets` that keeps its images in `data` and its labels in `targets`.

    Class attributes:
        name: of the class in `torchvision.datasets`.
        folder: where under `root` torchvision looks for the files.
        mean, std: the customary normalisation, on the scale 0..1.
        files: that must lie there.
        archive: in `root`, which torchvision unpacks; empty where each file is packed alone.
        known: what the published files hold.
    """

    class Params(SourceParams):
        root: Path = Field(Path("data"), exclude=True)
        """Where the files are, or are downloaded to. A relative path begins in the suite's folder; unless given, it is `data` in
        the folder where kdbench is started."""

    params: Params
    name: ClassVar[str]
    folder: ClassVar[str]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    files: ClassVar[tuple[str, ...]]
    archive: ClassVar[str] = ""
    known: ClassVar[Contents]

    @property
    def to_download(self) -> str | None:
        """Files that are neither there nor in an archive; whether they are sound shows in `load`."""
        root = self.params.root.absolute()
        folder = root / self.folder
        missing = [file for file in self.files if not ((folder / file).is_file() or (folder / f"{file}.gz").is_file())]
        if not missing or (root / self.archive).is_file():
            return None
        which = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
        return f"files of {self.name} are not in {folder} ({which}): a run downloads them, which needs a network"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Known without a download."""
        return self.known.image_shape

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Customary, so that it is known without a download."""
        return self.mean, self.std

    def contents(self) -> Contents:
        """Known without a download."""
        return self.known

    def check(self) -> None:
        """See that `root` can hold the files; whether they are there or can be downloaded shows in `load`."""
        if self.params.root.exists() and not self.params.root.is_dir():
            raise KdbenchError(
                f"root: {self.params.root.absolute()} is not a directory; give the directory that holds {self.folder}."
            )
        refuse_division(self.known, self.params)

    def load(self) -> Dataset:
        train, classes = self._split(train=True)
        test, _ = self._split(train=False)
        return Dataset(train=train, test=test, classes=classes, mean=self.mean, std=self.std)

    def _split(self, *, train: bool) -> tuple[Split, tuple[str, ...]]:
        from torchvision import datasets  # slow to import, and listing data sets must be instant

        read = getattr(datasets, self.name)
        try:
            try:
                files = read(self.params.root, train=train)
            except RuntimeError:  # a file is missing, or its checksum is another one
                self._download(read)
                files = read(self.params.root, train=train)
        except Exception as error:  # from an unreachable network to an assertion about a file that was cut short
            reason = " ".join(str(error).split()) or "a file is damaged"
            raise KdbenchError(
                f"cannot read or download {self.name}: {reason}. Put its files, unpacked, into "
                f"{(self.params.root / self.folder).absolute()}, or run once where there is a network."
            ) from error
        images = torch.as_tensor(files.data)
        if images.ndim == 3:  # grey images come without a channel
            images = images[..., None]
        return Split(images.contiguous(), torch.as_tensor(files.targets, dtype=torch.int64)), tuple(files.classes)

    def _download(self, read: Callable[..., object]) -> None:
        """Let torchvision put its files below `root`, each whole: other processes may do the same at once, or read.

        Archives that lie there already are not downloaded again.
        """
        root = self.params.root
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".download-") as made:
            for archive in (root / getattr(read, "filename", self.folder), *(root / self.folder).glob("*.gz")):
                if archive.is_file():
                    copied = Path(made, archive.relative_to(root))
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(archive, copied)
            read(made, download=True)
            for file in sorted(file for file in Path(made).rglob("*") if file.is_file()):
                target = root / file.relative_to(made)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)


@register_dataset("fashion_mnist")
class FashionMNIST(TorchvisionSource):
    """Fashion-MNIST: 60,000 training and 10,000 test images of 28x28x1, 10 classes; through torchvision."""

    name = "FashionMNIST"
    folder = "FashionMNIST/raw"
    files = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    mean = (0.2860,)
    std = (0.3530,)
    known = Contents(
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        image_shape=(1, 28, 28),
        train=(6000,) * 10,
        test=(1000,) * 10,
    )


@register_dataset("cifar10")
class CIFAR10(TorchvisionSource):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32x3, 10 classes; through torchvision."""

    name = "CIFAR10"
    folder = "cifar-10-batches-py"
    files = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
    archive = "cifar-10-python.tar.gz"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    known = Contents(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        image_shape=(3, 32, 32),
        train=(5000,) * 10,
        test=(1000,) * 10,
    )


CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl
hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@register_dataset("cifar100")
class CIFAR100(TorchvisionSource):
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32x3, 100 classes; through torchvision."""

    name = "CIFAR100"
    folder = "cifar-100-python"
    files = ("train", "test", "meta")
    archive = "cifar-100-python.tar.gz"
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
    known = Contents(
        tuple(CIFAR100_CLASSES.split()),
        image_shape=(3, 32, 32),
        train=(500,) * 100,
        test=(100,) * 100,
    )
