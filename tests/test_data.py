"""Where images come from, what identifies them, and what a user is told when they are not there."""

import gzip
import hashlib
import io
import os
import pickle
import re
import shutil
import struct
import urllib.request
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from kdbench.data import (
    CIFAR10,
    CIFAR100,
    DATASETS,
    Dataset,
    Digits,
    FashionMNIST,
    ImageFolder,
    Split,
    channel_statistics,
    hold_out,
    use_some,
)
from kdbench.data.decode import image_suffixes
from kdbench.errors import DataError, KdbenchError


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def small_dataset() -> Dataset:
    train = Split(random_images(6, 4, 5, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    test = Split(random_images(3, 4, 5, 3, seed=1), torch.tensor([0, 1, 2]))
    return Dataset(train, test, classes=("cat", "dog", "eel"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


# Every registered data set


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_data_set_says_in_one_line_what_it_is(name):
    first = (DATASETS.get(name).__doc__ or "").splitlines()[0]
    assert 20 < len(first) < 130


@pytest.mark.parametrize("name", DATASETS.names())
def test_where_the_files_are_is_no_part_of_a_data_sets_identity(name):
    params = DATASETS.get(name).Params
    required = {"label": "mine", "size": 8} if name in ("imagefolder", "imagestream") else {}
    if "root" not in params.model_fields:
        assert name == "digits"
        return
    here, there = (params.model_validate({"root": root, **required}).model_dump() for root in ("/here", "/there"))
    assert here == there
    assert "root" not in here


@pytest.mark.parametrize("fraction", [-0.1, 0.51])
def test_at_most_half_of_the_training_images_can_be_held_out(fraction):
    with pytest.raises(ValidationError, match="validation"):
        Digits.Params(validation=fraction)


# A data set as a value


def test_shape_and_number_of_classes():
    dataset = small_dataset()
    assert dataset.image_shape == (3, 4, 5)
    assert dataset.num_classes == 3
    assert (len(dataset.train), len(dataset.test)) == (6, 3)


def test_the_fingerprint_is_that_of_the_content():
    assert small_dataset().fingerprint == small_dataset().fingerprint
    assert len(bytes.fromhex(small_dataset().fingerprint)) == 8


@pytest.mark.parametrize("part", ["train pixel", "test pixel", "train label", "test label", "class name", "shape"])
def test_the_fingerprint_changes_with(part):
    changed = small_dataset()
    split = changed.test if part.startswith("test") else changed.train
    if part.endswith("pixel"):
        split.images[-1, -1, -1, -1] ^= 1
    elif part.endswith("label"):
        split.labels[-1] = 0
    elif part == "class name":
        changed = Dataset(changed.train, changed.test, ("cat", "dog", "elk"), changed.mean, changed.std)
    else:
        reshaped = Split(split.images.view(6, 5, 4, 3), split.labels)
        changed = Dataset(reshaped, changed.test, changed.classes, changed.mean, changed.std)
    assert changed.fingerprint != small_dataset().fingerprint


def test_channel_statistics_are_those_of_the_pixels_scaled_to_one():
    images = random_images(20, 6, 7, 3)
    mean, std = channel_statistics(images)
    scaled = images.double().div(255).flatten(0, 2)
    assert mean == pytest.approx(scaled.mean(0).tolist(), rel=1e-12)
    assert std == pytest.approx(scaled.std(0, correction=0).tolist(), rel=1e-12)


def test_a_constant_channel_cannot_be_normalised():
    images = random_images(5, 4, 4, 3)
    images[..., 1] = 7
    with pytest.raises(
        KdbenchError, match=r"channel 1 has the same value in every pixel .*; give `mean` and `std`, or other images"
    ):
        channel_statistics(images)


@pytest.mark.parametrize("last", [-1, 3])
def test_a_label_without_a_class_is_refused(last):
    whole = small_dataset()
    split = Split(whole.test.images, torch.tensor([0, 1, last]))
    with pytest.raises(KdbenchError, match=r"3 classes and labels from .*; number the labels from 0, and name every class"):
        Dataset(whole.train, split, whole.classes, whole.mean, whole.std)


def test_training_images_of_one_class_are_refused():
    whole = small_dataset()
    of_one = Split(whole.train.images, torch.ones(6, dtype=torch.int64))
    with pytest.raises(KdbenchError, match=r"the data set gives training images of only one class; give it images of two classes"):
        Dataset(of_one, whole.test, whole.classes, whole.mean, whole.std)


def test_images_that_stand_in_both_splits_are_told():
    train, test = random_images(60, 2, 2, 3), random_images(20, 2, 2, 3, seed=1)
    labels, test_labels = torch.arange(60) % 3, torch.arange(20) % 3
    made = partial(Dataset, classes=("cat", "dog", "eel"), mean=(0.5,) * 3, std=(0.2,) * 3, notes=("of the source",))
    assert made(Split(train, labels), Split(test, test_labels)).contents.notes == ("of the source",)
    test[[0, 1, 2, 3]] = train[[0, 1, 2, 2]]  # the last of label 0, and a training image of label 2
    assert made(Split(train, labels), Split(test, test_labels)).contents.notes == (
        "of the source",
        "4 of 20 test images are identical to a training image, 1 of them with another label",
    )
    assert made(Split(train, labels), Split(test[1:2], test_labels[1:2])).contents.notes[1:] == (
        "1 of 1 test images is identical to a training image",
    )
    train[[30, 31]] = train[40].clone()
    test[0] = random_images(2, 2, 3, seed=2)
    test[4] = train[40]  # of its own label, and of another one
    assert made(Split(train, labels), Split(test, test_labels)).contents.notes[1:] == (
        "4 of 20 test images are identical to a training image, 2 of them with another label",
        "3 of 60 training images are identical to one with another label",
    )


# Validation


def numbered_split(per_class: list[int]) -> Split:
    """Image i holds the number i, so that it can be followed."""
    n = sum(per_class)
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(per_class)])
    return Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), labels)


def test_no_validation_by_default():
    split = numbered_split([5, 5])
    train, validation = hold_out(split, fraction=Digits.Params().validation)
    assert train is split
    assert validation is None


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_held_out_images_are_divided_from_the_others_and_keep_their_labels(fraction):
    split = numbered_split([60, 100, 40])
    train, validation = hold_out(split, fraction=fraction)
    assert validation is not None
    assert len(validation) == round(200 * fraction)
    ids = torch.cat([train.images, validation.images]).flatten().long()
    assert torch.equal(ids.sort().values, torch.arange(200))
    assert torch.equal(split.labels[ids], torch.cat([train.labels, validation.labels]))


def test_each_class_gives_its_share():
    _, validation = hold_out(numbered_split([61, 99, 40]), fraction=0.1)
    assert validation is not None
    for given, count in zip(validation.labels.bincount().tolist(), [61, 99, 40], strict=True):
        assert abs(given - 0.1 * count) < 1


def test_held_out_images_are_drawn_at_random_but_always_the_same():
    first, second = (hold_out(numbered_split([100, 100]), fraction=0.2)[1] for _ in range(2))
    assert first is not None and second is not None
    assert torch.equal(first.images, second.images)
    assert first.images.flatten()[1:].int().sub(first.images.flatten()[:-1].int()).unique().numel() > 3  # no regular spacing


def test_a_fraction_below_one_image_is_refused():
    told = r"validation: 0.01 of 20 training images is less than one image; give a larger fraction"
    with pytest.raises(KdbenchError, match=told):
        hold_out(numbered_split([10, 10]), fraction=0.01)


@pytest.mark.parametrize(
    ("divide", "told"),
    [
        (partial(use_some, count=2), "train_images: 2 gives training images of only one class; give more, or 0 for all"),
        (partial(hold_out, fraction=0.5), r"validation: 0.5 gives training images of only one class; give a smaller fraction"),
    ],
)
def test_what_leaves_one_class_to_train_on_is_refused(divide, told):
    with pytest.raises(KdbenchError, match=told):
        divide(numbered_split([99, 1]))


# Digits


def test_digits_are_divided_once_and_for_all(tmp_path):
    source = Digits(Digits.Params(), cache=tmp_path)
    source.check()
    dataset = source.load()
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.classes == tuple("0123456789")
    assert dataset.train.images.max() == 255
    assert dataset.fingerprint == "40e25bb279c561b4"
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train.images)
    assert set(dataset.test.labels.bincount().tolist()) <= {35, 36, 37}
    assert source.contents() == dataset.contents


# Through torchvision


def write_fashion_mnist(root: Path, *, train: Tensor, test: Tensor) -> None:
    """The four IDX files, as they lie below `root` after a download."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, images in (("train", train), ("t10k", test)):
        labels = np.arange(len(images), dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *images.shape) + images.numpy().tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, len(images)) + labels.tobytes())


def write_cifar(monkeypatch, root: Path, source: type[CIFAR10 | CIFAR100]) -> Tensor:
    """Two images per file, channels first as in the archive; torchvision gets their checksums. Returns the training images."""
    reader = getattr(torchvision.datasets, source.name)
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    label_key = "labels" if source is CIFAR10 else "fine_labels"

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    images = random_images(2 * len(reader.train_list), 3, 32, 32)
    batches = dict(zip([name for name, _ in reader.train_list], images.split(2), strict=True))
    batches |= {name: random_images(2, 3, 32, 32, seed=1) for name, _ in reader.test_list}
    sums = {name: write(name, {"data": batch.view(2, -1).numpy(), label_key: [1, 0]}) for name, batch in batches.items()}
    meta_sum = write(reader.meta["filename"], {reader.meta["key"]: ["a", "b"]})
    monkeypatch.setattr(reader, "train_list", [[name, sums[name]] for name, _ in reader.train_list])
    monkeypatch.setattr(reader, "test_list", [[name, sums[name]] for name, _ in reader.test_list])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": meta_sum})
    return images


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails at once."""

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


def test_fashion_mnist_is_read_from_the_files_below_root(tmp_path, no_network):
    train, test = random_images(30, 28, 28), random_images(20, 28, 28, seed=1)
    write_fashion_mnist(tmp_path, train=train, test=test)
    source = FashionMNIST(FashionMNIST.Params(root=tmp_path), cache=tmp_path)
    source.check()
    assert source.to_download is None
    dataset = source.load()
    assert torch.equal(dataset.train.images, train[..., None])
    assert torch.equal(dataset.test.images, test[..., None])
    assert dataset.train.labels.tolist() == [i % 10 for i in range(30)]
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.num_classes == 10 and dataset.classes[-1] == "Ankle boot"
    assert (dataset.mean, dataset.std) == ((0.2860,), (0.3530,))


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100])
def test_cifar_is_read_from_the_files_below_root(source, tmp_path, monkeypatch, no_network):
    train = write_cifar(monkeypatch, tmp_path, source)
    made = source(source.Params(root=tmp_path), cache=tmp_path)
    files = {file.name for file in (tmp_path / source.folder).iterdir()}
    for file in files:  # every one that torchvision reads
        (tmp_path / source.folder / file).rename(tmp_path / "away")
        assert f" ({file}): " in str(made.to_download)
        (tmp_path / "away").rename(tmp_path / source.folder / file)
    assert made.to_download is None
    dataset = made.load()
    assert torch.equal(dataset.train.images, train.permute(0, 2, 3, 1))
    assert dataset.test.labels.tolist() == [1, 0]
    assert dataset.classes == ("a", "b")
    assert dataset.image_shape == (3, 32, 32)
    assert (dataset.mean, dataset.std) == (source.mean, source.std)


@pytest.mark.parametrize(
    ("source", "folder"),
    [(FashionMNIST, "FashionMNIST/raw"), (CIFAR10, "cifar-10-batches-py"), (CIFAR100, "cifar-100-python")],
)
def test_without_files_and_network_the_message_says_where_to_put_them(source, folder, tmp_path, no_network):
    made = source(source.Params(root=tmp_path / "data"), cache=tmp_path)
    made.check()
    told = made.to_download
    assert told and told.startswith(f"files of {source.name} are not in {tmp_path / 'data' / folder} (")
    assert told.endswith("): a run downloads them, which needs a network")
    assert not (tmp_path / "data").exists()  # a check downloads nothing
    with pytest.raises(KdbenchError) as caught:
        made.load()
    message = str(caught.value)
    assert message.startswith(f"cannot read or download {source.name}: ") and "no network" in message
    assert message.endswith(f"Put its files, unpacked, into {tmp_path / 'data' / folder}, or run once where there is a network.")
    assert "\n" not in message


def test_a_download_appears_whole_beside_those_of_other_processes(tmp_path, monkeypatch):
    train, test = random_images(30, 28, 28), random_images(20, 28, 28, seed=1)
    write_fashion_mnist(tmp_path / "server", train=train, test=test)
    files = (tmp_path / "server" / "FashionMNIST" / "raw").iterdir()
    served = {f"{file.name}.gz": gzip.compress(file.read_bytes()) for file in files}
    root, there = tmp_path / "data", []

    class Response(io.BytesIO):
        url, length = None, 0

    def urlopen(request, **_: object) -> Response:
        there.extend(file for file in root.rglob("*") if file.is_file() and ".download-" not in str(file))
        return Response(served[request.full_url.rpartition("/")[2]])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    sums = [(name, hashlib.md5(data).hexdigest()) for name, data in served.items()]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    assert "train-images-idx3-ubyte and 3 more" in str(FashionMNIST(FashionMNIST.Params(root=root), cache=tmp_path).to_download)
    dataset = FashionMNIST(FashionMNIST.Params(root=root), cache=tmp_path).load()
    assert torch.equal(dataset.train.images, train[..., None])
    assert there == []
    assert [file.name for file in root.iterdir()] == ["FashionMNIST"] and len(list(root.rglob("*ubyte"))) == 4


@pytest.mark.parametrize("left", [3, 500])
def test_a_file_that_was_cut_short_is_one_message(left, tmp_path, no_network):
    write_fashion_mnist(tmp_path, train=random_images(3, 28, 28), test=random_images(3, 28, 28))
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(KdbenchError, match=r"cannot read or download FashionMNIST: .+\. Put its files, .*FashionMNIST/raw"):
        FashionMNIST(FashionMNIST.Params(root=tmp_path), cache=tmp_path).load()


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(KdbenchError, match=r"root: .*data is not a directory; give the directory that holds cifar-10-batches-py"):
        CIFAR10(CIFAR10.Params(root=tmp_path / "data"), cache=tmp_path).check()


@pytest.mark.parametrize(("source", "images"), [(FashionMNIST, 60_000), (CIFAR10, 50_000), (CIFAR100, 50_000)])
def test_what_a_download_will_hold_is_known_before(source, images, tmp_path):
    contents = source(source.Params(root=tmp_path), cache=tmp_path).contents()
    assert (sum(contents.train), sum(contents.test)) == (images, 10_000)
    assert len(contents.train) == len(contents.test) == len(set(contents.classes)) == (100 if source is CIFAR100 else 10)
    assert contents.image_shape == ((1, 28, 28) if source is FashionMNIST else (3, 32, 32))
    if source is FashionMNIST:
        assert list(contents.classes) == torchvision.datasets.FashionMNIST.classes
    else:
        assert list(contents.classes) == sorted(contents.classes)
    assert list(tmp_path.iterdir()) == []


# Image folders


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of 6x6 images, three to train on and two to test on."""
    seed = 0
    for split, count in (("train", 3), ("test", 2)):
        for name in ("dog", "cat"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                seed += 1
                picture = Image.fromarray(random_images(6, 6, 3, seed=seed).numpy())
                picture.save(tmp_path / "images" / split / name / f"{i}.png")
    return tmp_path / "images"


def image_folder(folder: Path, **params: object) -> ImageFolder:
    return ImageFolder(ImageFolder.Params(root=folder, **{"label": "pets", "size": 6, **params}), cache=folder.parent / "cache")


@pytest.mark.parametrize(("params", "told"), [({"train_images": 10**6}, "train_images"), ({"validation": 1e-6}, "validation")])
@pytest.mark.parametrize("name", DATASETS.names())
def test_a_division_that_cannot_be_is_found_before_anything_is_read(name, params, told, folder):
    source = DATASETS.get(name)
    needed = {"root": folder, "label": "pets", "size": 6} if name.startswith("image") else {}
    with pytest.raises(KdbenchError, match=f"^{told}: "):
        source(source.Params.model_validate({**needed, **params}), cache=folder).check()


def kept(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache").iterdir())


def test_classes_and_files_come_in_the_order_of_their_names(folder):
    source = image_folder(folder)
    source.check()
    dataset = source.load()
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    expected = [
        np.asarray(Image.open(folder / "train" / name / file)) for name in ("cat", "dog") for file in ("0.png", "1.png", "2.png")
    ]
    assert np.array_equal(dataset.train.images.numpy(), np.stack(expected))
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train.images)


def test_val_serves_where_there_is_no_test(folder):
    expected = image_folder(folder).load()
    (folder / "test").rename(folder / "val")
    assert image_folder(folder).load().fingerprint == expected.fingerprint


def test_given_mean_and_std_are_used(folder):
    dataset = image_folder(folder, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).load()
    assert (dataset.mean, dataset.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_other_sizes_are_resized_bilinearly(folder):
    dataset = image_folder(folder, size=4).load()
    expected = Image.open(folder / "train" / "cat" / "0.png").resize((4, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(dataset.train.images[0].numpy(), np.asarray(expected))


def test_one_channel_is_grey(folder):
    dataset = image_folder(folder, channels=1).load()
    expected = Image.open(folder / "train" / "cat" / "0.png").convert("L")
    assert dataset.image_shape == (1, 6, 6)
    assert np.array_equal(dataset.train.images[0, ..., 0].numpy(), np.asarray(expected))


SUFFIXES = ["jpg", "jpeg", "jfif", "png", "bmp", "webp", "gif", "tif", "tiff", "pgm", "ppm", "jp2", "tga", "JPG", "Png"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_accepted_file_types(folder, suffix):
    Image.open(folder / "train" / "cat" / "0.png").save(folder / "train" / "cat" / f"more.{suffix}")
    assert len(image_folder(folder).load().train) == 7


def test_documents_drawings_films_and_measurements_are_no_accepted_file_types():
    assert not image_suffixes() & {".pdf", ".eps", ".ps", ".wmf", ".mpg", ".flc", ".fits", ".h5", ".grib"}


def test_folders_below_a_class_folder_are_read_as_torchvision_reads_them(folder):
    for deeper in ("1 left", "1 left/up", "2"):
        shutil.copytree(folder / "test" / "dog", folder / "train" / "cat" / deeper)
    theirs = torchvision.datasets.ImageFolder(folder / "train").samples
    found = image_folder(folder).folders.train
    assert list(zip(found.files, found.labels, strict=True)) == [(str(Path(f).relative_to(folder)), label) for f, label in theirs]
    assert found.labels == (0,) * 9 + (1,) * 3
    (folder / "train" / "cat" / "2" / "loop").symlink_to(folder / "train")
    assert image_folder(folder).folders.train == found
    assert image_folder(folder).contents().passed_over == {"train/: a link to a folder above it": 1}


def test_what_is_passed_over_is_counted_by_reason(folder):
    assert image_folder(folder).load().contents.passed_over == {}
    for name in ("notes.txt", "scan.heic", "more.HEIC", "._0.png", ".DS_Store", "1.2.840.5", "README"):
        (folder / "train" / "cat" / name).write_text("x")
    (folder / "train" / ".thumbnails").mkdir()
    (folder / "test" / "labels.csv").write_text("x")
    shutil.copytree(folder / "train", folder / "val")
    source = image_folder(folder)
    assert source.contents().passed_over == {
        "train/: unknown type (.txt)": 1,
        "train/: unknown type (.heic)": 2,
        "train/: unknown type (no suffix)": 2,
        "train/: hidden": 2,
        "train/: in no class folder": 1,
        "test/: in no class folder": 1,
        "val/: not used beside test/": 13,
    }
    data = source.load()
    assert len(data.train) == 6
    assert data.contents == source.contents()


def test_folders_without_labels_are_no_test_images(folder):
    expected = image_folder(folder).load()
    (folder / "test").rename(folder / "val")
    (folder / "test").mkdir()
    shutil.copy(folder / "val" / "cat" / "0.png", folder / "test")
    data = image_folder(folder).load()
    assert data.fingerprint == expected.fingerprint
    assert data.passed_over == {"test/: not used beside val/": 1}


def test_images_of_12_bits_that_are_kept_as_16_are_told(folder):
    assert image_folder(folder).load().notes == ()
    for file in folder.rglob("*.png"):
        grey = np.asarray(Image.open(file).convert("L")).astype(np.uint16)
        Image.fromarray(grey << 4).save(file)
    (note,) = image_folder(folder, channels=1).load().contents.notes
    assert re.fullmatch(
        r"the brightest value of the training images is 1[45] of 255; if they are 16-bit images .* 0\.\.65535", note
    )


# What is kept in the cache


def test_images_are_decoded_once(folder, monkeypatch):
    first = image_folder(folder).load()
    monkeypatch.setattr("kdbench.data.imagefolder.decode_file", None)
    second = image_folder(folder).load()
    assert second.fingerprint == first.fingerprint
    assert (second.mean, second.std) == (first.mean, first.std)
    assert len(kept(folder)) == 1  # and no temporary file


def test_what_is_kept_depends_on_the_content_and_not_on_the_place(folder, monkeypatch):
    first = image_folder(folder).load()
    shutil.copytree(folder, folder.parent / "moved")
    monkeypatch.setattr("kdbench.data.imagefolder.decode_file", None)
    assert image_folder(folder.parent / "moved", label="the same pets").load().fingerprint == first.fingerprint


@pytest.mark.parametrize("change", ["content", "place", "size", "channels"])
def test_images_are_decoded_again_after_a_change_of(change, folder):
    before = image_folder(folder).load()
    image = folder / "train" / "cat" / "2.png"
    params: dict[str, object] = {}
    if change == "content":
        at = os.stat(image)
        Image.fromarray(random_images(6, 6, 3, seed=99).numpy()).save(image)
        os.utime(image, ns=(at.st_atime_ns, at.st_mtime_ns))  # the time of a file proves nothing
    elif change == "place":  # from last of the training images to first of the test images: the same files in the same order
        (folder / "train" / "dog" / "2.png").rename(folder / "test" / "cat" / "-.png")
    else:
        params = {"size": 5} if change == "size" else {"channels": 1}
    assert image_folder(folder, **params).load().fingerprint != before.fingerprint
    assert len(kept(folder)) == 2


def test_images_are_decoded_again_when_other_pixels_are_made_of_them(folder, monkeypatch):
    image_folder(folder).load()
    monkeypatch.setattr("kdbench.data.imagefolder.PIXELS", 0)
    image_folder(folder).load()
    assert len(kept(folder)) == 2


@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_who_may_read_what_is_kept_is_left_to_the_umask(folder, umask):
    before = os.umask(umask)
    try:
        image_folder(folder).load()
    finally:
        os.umask(before)
    [path] = kept(folder)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("when", ["read", "written"])
def test_what_cannot_be_read_or_written_in_the_cache_is_told_with_its_reason(folder, when):
    image_folder(folder).load()
    [path] = kept(folder)
    path.unlink()
    if when == "read":
        path.mkdir()
    else:
        path.parent.rmdir()
        path.parent.touch()
    reason = "Is a directory" if when == "read" else "Not a directory"
    with pytest.raises(KdbenchError, match=rf"{path} cannot be (read|written) \({reason}\)\. .*, or choose another --results"):
        image_folder(folder).load()


@pytest.mark.parametrize("damage", ["one bit of a pixel", "one bit of the checksum", "cut short", "empty"])
def test_a_damaged_file_is_set_aside_and_the_images_are_decoded_again(folder, damage):
    expected = image_folder(folder).load().fingerprint
    [path] = kept(folder)
    content = bytearray(path.read_bytes())
    if damage.startswith("one bit"):
        content[-1 if "pixel" in damage else content.index(b'"sha256":"') + 12] ^= 1
    path.write_bytes({"cut short": content[:-9], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match=r"is damaged: set aside as .*\.broken; the images are decoded again"):
        assert image_folder(folder).load().fingerprint == expected
    assert [file.suffix for file in kept(folder)] == [".broken", ".safetensors"]
    assert image_folder(folder).load().fingerprint == expected  # without a warning


# Mistakes in image folders


def test_missing_root(folder):
    with pytest.raises(
        KdbenchError, match=r"root: there is no folder .*nowhere; give one that holds train/<class>/ and test/<class>/"
    ):
        image_folder(folder / "nowhere").check()


def test_a_relative_root_is_told_as_an_absolute_one(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(KdbenchError, match=f"root: there is no folder {folder.parent / 'nowhere'};"):
        image_folder(Path("nowhere")).check()


def test_a_root_that_cannot_be_looked_at():
    with pytest.raises(KdbenchError, match=r"cannot be read \(File name too long\)\. Make it readable, or give another `root`"):
        ImageFolder(ImageFolder.Params(root=Path("x" * 300), label="x", size=6), cache=Path()).check()


@pytest.mark.parametrize(("removed", "named"), [("train", "train/"), ("test", "test/ or val/")])
def test_missing_split(folder, removed, named):
    shutil.rmtree(folder / removed)
    with pytest.raises(
        KdbenchError, match=f"{folder} has no folder {named}; arrange the images as train/<class>/ and test/<class>/"
    ):
        image_folder(folder).check()


def test_split_without_classes(folder):
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    with pytest.raises(KdbenchError, match=r"train has no class folders; arrange the images as train/<class>/"):
        image_folder(folder).check()


def test_one_class(folder):
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "dog")
    with pytest.raises(KdbenchError, match=r"train has only one class folder, cat/; add a second class"):
        image_folder(folder).check()


def test_names_of_files_that_are_no_utf8(folder):
    expected = image_folder(folder).load().fingerprint
    os.rename(folder / "train" / "cat" / "2.png", os.fsencode(folder) + b"/train/cat/2\xe9.png")
    assert image_folder(folder).load().fingerprint == expected


def test_names_of_class_folders_that_are_no_utf8(folder):
    os.rename(folder / "train" / "cat", os.fsencode(folder) + b"/train/caf\xe9")
    with pytest.raises(KdbenchError, match=r"the class folder b'caf\\xe9' in .*train is not UTF-8, .*; rename the folder"):
        image_folder(folder).check()


def test_empty_class(folder):
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "eel" / "moving.mpg").write_text("")
    with pytest.raises(
        KdbenchError,
        match=r"train/eel has no image \(skipped: 1 unknown type \(.mpg\)\); add some as .png or .jpg, or remove the folder",
    ):
        image_folder(folder).check()


def test_classes_that_differ(folder):
    (folder / "test" / "dog").rename(folder / "test" / "Dog")
    with pytest.raises(
        KdbenchError, match=r"train and .*test differ in their class folders: only one of them has Dog, dog; give both"
    ):
        image_folder(folder).check()


WAY_OUT = (
    "Put each file back as it was; then the same command continues. Or replace or remove it and, if there are results on these "
    "images, give the data set another `label`; what is finished is kept."
)


@pytest.mark.parametrize("left", [20, 60])
def test_broken_images_are_told_at_once(folder, left):
    whole = (folder / "test" / "cat" / "1.png").read_bytes()
    broken = [folder / split / "cat" / f"{i}.png" for split in ("train", "test") for i in (0, 1)]
    for file in broken:
        file.write_bytes(whole[:left])
    with pytest.raises(DataError) as caught:
        image_folder(folder).load()
    told, way_out = str(caught.value).rsplit("\n", 1)
    assert way_out == WAY_OUT
    assert re.fullmatch("cannot read 4 files:" + "".join(f"\n  {file}: .+" for file in broken), told)
    assert not (folder.parent / "cache").exists()


def test_files_that_one_may_not_read_are_told_as_such(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file).name != "1.png")
    told = r"you have no right to read it \(chmod a\+r\)"
    with pytest.raises(DataError, match=rf"cat/1.png: {told}\n(.*\n)*.*dog/1.png: {told}\nPut each file back"):
        image_folder(folder).check()


def test_files_that_cannot_be_opened_are_told_before_the_run_with_all_that_are_damaged(folder):
    for i in range(25):
        (folder / "train" / "dog" / f"empty{i}.png").touch()
    (folder / "test" / "cat" / "lost.png").symlink_to("nowhere")
    (folder / "test" / "dog" / "0.png").write_bytes(b"damaged")
    assert image_folder(folder).contents().train == (3, 28)
    with pytest.raises(DataError) as caught:
        image_folder(folder).check()
    first, *named, last = str(caught.value).splitlines()
    assert (first, last) == ("cannot read 27 files:", WAY_OUT)
    assert named[0] == f"  {folder / 'train' / 'dog' / 'empty0.png'}: it is empty"
    assert (len(named), named[-1]) == (21, "  and 7 more")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"label": ""}, "label"),
        ({"size": 0}, "size"),
        ({"channels": 2}, "channels"),
        ({"mean": (0.5, 0.5, 0.5)}, "give `mean` and `std` together, or neither"),
        ({"mean": (0.5,), "std": (0.2,)}, "`mean` and `std` must have one number for each channel, 3 in all"),
        ({"mean": (), "std": ()}, "`mean` and `std` must have one number for each channel, 3 in all"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.0, 0.2)}, "std"),
        ({"sise": 8}, "sise"),
    ],
)
def test_wrong_parameters(folder, params, message):
    with pytest.raises(ValidationError, match=message):
        image_folder(folder, **params)


@pytest.mark.parametrize("name", ["root", "label", "size"])
def test_required_parameters(name):
    params = {"root": "/images", "label": "pets", "size": 8}
    del params[name]
    with pytest.raises(ValidationError, match=name):
        ImageFolder.Params.model_validate(params)
