"""Whether other images lie under a label than a results directory has records of, as far as counting tells: none is read."""

from __future__ import annotations

from kdbench.data import Contents, SourceParams
from kdbench.data.division import training_images
from kdbench.errors import listed
from kdbench.results.store import Store
from kdbench.spec.trial import DatasetSpec

FOLDERS = {"imagefolder", "imagestream"}
"""Data sets that read the same folders, each in its own way."""


def refuse_other_counts(store: Store, dataset: DatasetSpec, contents: Contents, params: SourceParams) -> None:
    """See that classes, size and numbers of images are those of every record of the data set, and that they are streamed or not.

    Args:
        store: the results directory.
        dataset: as trials have it.
        contents: what lies there now.
        params: of the data set.

    Raises:
        KdbenchError: they are not. Images that were replaced by as many others are noticed where they are read.
    """
    classes = {*map(str, contents.classes)}  # as a record has them: a data set of one's own may number them
    now = (tuple(map(int, contents.image_shape)), training_images(contents, params), int(sum(contents.test)))
    for record in store.records():
        if record.dataset != dataset.label or not (data := record.data):
            continue
        then = (data.image_shape, data.train_images.images, data.test_images.images)
        names = ("channels, height and width", "training images", "test images")
        found = [f"{name} {old}, now {new}" for name, old, new in zip(names, then, now, strict=True) if old != new]
        if changed := {*data.classes} ^ classes:
            found.insert(0, f"only then or only now class {listed(sorted(changed))}")
        if {was := record.spec["dataset"]["name"], dataset.name} == FOLDERS:
            found.insert(0, f"{was}, now {dataset.name}")
        if found:
            raise store.from_other_images(record, "; ".join(found))
