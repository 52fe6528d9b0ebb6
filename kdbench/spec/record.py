"""The result of a trial as it lies on disk: some kB of JSON with units in its keys."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from kdbench.wording import plural

PROTOCOL = 3
"""Raised whenever the same spec would give other numbers; records of another protocol are never mixed with ours.

3: stages that learn from the teacher alone are trained for each student seed, where one training served all seeds before; methods
are defined on small batches, few classes and constant outputs, where some were not; image files are read as a viewer shows them.
"""


class Environment(BaseModel):
    """What a trial ran on: versions, None of a timm that is missing, and of cuDNN on a CPU; processor or GPU; `threads` of torch,
    None on a GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kdbench: str
    torch: str
    torchvision: str
    timm: str | None = None
    python: str
    device: str
    threads: int | None
    cudnn: int | None = None


MOST_COUNTED = 100
"""Classes up to which a record counts the images of each one: of ImageNet's thousand it would be as long as a book."""


class ImageCounts(BaseModel):
    """How many images a split has: in all, in its smallest and its largest class, and in each class in the order of the classes.

    `by_class` is None where there are more than `MOST_COUNTED` classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    fewest_of_a_class: int
    most_of_a_class: int
    by_class: tuple[int, ...] | None

    @classmethod
    def of(cls, by_class: Sequence[int]) -> Self:
        """The counts of a split with `by_class[k]` images of class k."""
        each = tuple(by_class) if len(by_class) <= MOST_COUNTED else None
        return cls(images=sum(by_class), fewest_of_a_class=min(by_class), most_of_a_class=max(by_class), by_class=each)


def images_told(
    train: ImageCounts,
    test: ImageCounts,
    *,
    validation: ImageCounts | None = None,
    classes: int,
    passed_over: Mapping[str, int],
) -> str:
    """`18 training images and 18 test images in 3 classes (2 to 12 a class)`, of the training images, and what was passed over."""
    splits = ((train, "training"), (validation, "validation"), (test, "test"))
    *others, last = [f"{split.images:,} {plural(f'{name} image', split.images)}" for split, name in splits if split]
    least, most = train.fewest_of_a_class, train.most_of_a_class
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    told = f"{', '.join(others)} and {last} in {classes:,} {plural('class', classes)} ({each} a class)"
    left_out = "; ".join(f"{count:,} {plural('file', count)}, {reason}" for reason, count in passed_over.items())
    return f"{told}; passed over: {left_out}" if left_out else told


class Data(BaseModel):
    """What a trial saw of its data set, and what must be known to show its student other images.

    `classes` are the names of the labels 0, 1, ...; `image_shape` is (C, H, W). An image of another size was resized, bilinear and
    antialiased: `{"height_px": H, "width_px": W}` without regard to its shape, `{"shorter_side_px": N}` before its centre was cut
    out; None where the images have one size. Then `mean` was subtracted from each channel of pixels scaled to 0..1, and the rest
    was divided by `std`. `train_images` were trained on, `validation_images` held out of them (None where none were), and
    `passed_over_files` were not read, by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    resize: dict[str, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_images: ImageCounts
    validation_images: ImageCounts | None
    test_images: ImageCounts
    passed_over_files: dict[str, int]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """How many images there are, in one line."""
        return images_told(
            self.train_images,
            self.test_images,
            validation=self.validation_images,
            classes=len(self.classes),
            passed_over=self.passed_over_files,
        )


class Record(BaseModel):
    """One trial's result. Everything but the keys in `MEASURED` is a function of the spec, the data and the code.

    Errors are in percent of the test images. `test_error_pct` is the last epoch's and the headline. `best_test_error_pct` is the
    best epoch's on the test set, `best_epoch` counted from 1: stored for comparison with papers that report it, never a headline.
    Where the data set declares a validation split, `validation_error_pct` is the last epoch's error on it, and `selected_*` the
    test error at the epoch with the lowest one. `student_params` and `student_macs` are of the network that would be deployed,
    `extra_params` is the number of trainable parameters that are dropped after training, and `stage_epochs` of epochs in stages
    that trained the student before. `setting` is the method with the parameters that are not the defaults. `start_weights_sha256`
    is the hash of the tensors that a student with `weights` took over before its training, `weights_sha256` of those that
    training left. `data` says what the images were; records of earlier versions lack it. `stages` says how often stages that learn
    from the teacher alone were trained: `per-seed`, or `per-teacher`, once for all seeds; None where the method has none.
    `train_images_per_s` and `train_s` are what the method would cost alone: its own steps, the teacher's forward passes where it
    reads them, and the data. `startup_s`, which is no part of them, is what compiling and recording graphs took. `peak_mem_mib` is
    the lane's own on CUDA and the whole process's on the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    MEASURED: ClassVar[frozenset[str]] = frozenset(
        {
            "suite",
            "train_s",
            "data_s",
            "teacher_s",
            "startup_s",
            "train_images_per_s",
            "inference_images_per_s",
            "teacher_inference_images_per_s",
            "peak_mem_mib",
            "environment",
            "finished",
        }
    )

    protocol: int
    trial: str
    suite: str
    status: Literal["done", "failed"]
    reason: str | None = None
    spec: dict[str, Any]
    dataset: str
    recipe: str
    precision: str
    epochs: int
    teacher: str | None
    student: str
    method: str
    setting: str | None = None
    seed: int
    notes: tuple[str, ...] = ()

    test_error_pct: float | None = None
    best_test_error_pct: float | None = None
    best_epoch: int | None = None
    validation_error_pct: float | None = None
    selected_test_error_pct: float | None = None
    selected_epoch: int | None = None
    train_error_pct: float | None = None
    train_loss: float | None = None
    teacher_error_pct: float | None = None
    student_params: int | None = None
    student_macs: int | None = None
    teacher_params: int | None = None
    teacher_macs: int | None = None
    extra_params: int | None = None
    stage_epochs: int | None = None
    stages: str | None = None
    start_weights_sha256: str | None = None
    weights_sha256: str | None = None
    teacher_weights_sha256: str | None = None
    teacher_norms_folded: int | None = None

    method_code: str
    core_code: str
    data_fingerprint: str
    data: Data | None = None

    train_s: float | None = None
    data_s: float | None = None
    teacher_s: float | None = None
    startup_s: float | None = None
    train_images_per_s: float | None = None
    inference_images_per_s: float | None = None
    teacher_inference_images_per_s: float | None = None
    peak_mem_mib: float | None = None
    environment: Environment
    finished: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status == "done" and (self.test_error_pct is None or self.weights_sha256 is None):
            raise ValueError("a record that is done has a test error and the hash of its weights")
        if self.status == "failed" and not self.reason:
            raise ValueError("a failed record has a reason")
        return self
