"""The result of a trial as it lies on disk: some kB of JSON with units in its keys."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from kdbench.wording import counted, plural

PROTOCOL = 3
"""Raised whenever the same spec would give other numbers; records of another protocol are never mixed with ours.

3: stages that learn from the teacher alone are trained for each student seed, where one training served all seeds before; methods
are defined on small batches, few classes and constant outputs, where some were not; image files are read as a viewer shows them.
"""


_CONFIG = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Environment(BaseModel):
    """What a trial ran on."""

    model_config = _CONFIG

    kdbench: str
    """Version of kdbench."""
    torch: str
    """Version of torch, with its build."""
    torchvision: str
    """Version of torchvision."""
    timm: str | None = None
    """Version of timm; none where it is not installed."""
    python: str
    """Version of Python."""
    device: str
    """Name of the processor, with its cores and widest instructions, such as AVX512; or of the GPU."""
    threads: int | None
    """How many threads torch used; none on a GPU."""
    cudnn: int | None = None
    """Version of cuDNN; none on a processor."""


MOST_COUNTED = 100
"""Classes up to which a record counts the images of each one: of ImageNet's thousand it would be as long as a book."""


class ImageCounts(BaseModel):
    """How many images a split has."""

    model_config = _CONFIG

    images: int
    """In all."""
    fewest_of_a_class: int
    """In its smallest class."""
    most_of_a_class: int
    """In its largest class."""
    by_class: tuple[int, ...] | None
    """In each class, in the order of the classes; none where there are more than 100 classes."""

    @classmethod
    def of(cls, by_class: Sequence[int]) -> Self:
        """The counts of a split with `by_class[k]` images of class k."""
        each = tuple(by_class) if len(by_class) <= MOST_COUNTED else None
        return cls(images=sum(by_class), fewest_of_a_class=min(by_class), most_of_a_class=max(by_class), by_class=each)

    @property
    def one_class_error_pct(self) -> float:
        """Error in percent of always answering the largest class: what is no lower has learnt nothing that an error shows."""
        return 100 * (self.images - self.most_of_a_class) / self.images


def images_text(
    train: ImageCounts,
    test: ImageCounts,
    *,
    validation: ImageCounts | None = None,
    classes: int,
    passed_over: Mapping[str, int],
) -> str:
    """`18 training images and 18 test images in 3 classes (2 to 12 a class)`, of the training images, and what was skipped."""
    splits = ((train, "training"), (validation, "validation"), (test, "test"))
    *others, last = [f"{split.images:,} {plural(f'{name} image', split.images)}" for split, name in splits if split]
    least, most = train.fewest_of_a_class, train.most_of_a_class
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    text = f"{', '.join(others)} and {last} in {classes:,} {plural('class', classes)} ({each} a class)"
    left_out = "; ".join(f"{count:,} {plural('file', count)}, {reason}" for reason, count in passed_over.items())
    return f"{text}; skipped: {left_out}" if left_out else text


class Data(BaseModel):
    """What a trial saw of its data set, and what must be known to show its student other images."""

    model_config = _CONFIG

    classes: tuple[str, ...]
    """Names of the labels 0, 1, ..."""
    image_shape: tuple[int, int, int]
    """Channels, height and width of what the networks saw."""
    resize: dict[str, int] | None
    """How an image of another size was resized, bilinear and antialiased: `{"height_px": H, "width_px": W}` without regard to its
    shape, or `{"shorter_side_px": N}` before its centre was cropped. None where the images have one size."""
    mean: tuple[float, ...]
    """What was subtracted from each channel of pixels scaled to 0..1."""
    std: tuple[float, ...]
    """What each channel was then divided by."""
    train_images: ImageCounts
    """Images that were trained on."""
    validation_images: ImageCounts | None
    """Training images that were held out to select with; none where `validation` is 0."""
    test_images: ImageCounts
    """Images that were tested on."""
    passed_over_files: dict[str, int]
    """How many files were not read, by reason."""
    notes: tuple[str, ...]
    """What else a reader of the results must know of the images."""

    @property
    def summary(self) -> str:
        """How many images there are, in one line."""
        return images_text(
            self.train_images,
            self.test_images,
            validation=self.validation_images,
            classes=len(self.classes),
            passed_over=self.passed_over_files,
        )


class Record(BaseModel):
    """One trial's result. Everything but the keys in `MEASURED` is a function of the spec, the data and the code."""

    model_config = _CONFIG

    MEASURED: ClassVar[frozenset[str]] = frozenset(
        {
            "suite",
            "tuning",
            "train_s",
            "data_s",
            "teacher_s",
            "startup_s",
            "train_images_per_s",
            "inference_images_per_s",
            "teacher_inference_images_per_s",
            "peak_mem_mib",
            "jobs_on_machine",
            "environment",
            "planned",
            "planned_again",
            "first_finished",
            "finished",
        }
    )

    protocol: int
    """Version of the rules by which a trial is trained. Trials of different protocols are never mixed."""
    trial: str
    """Identity of the trial: a hash of its spec, and the name of its folder."""
    suite: str
    """The suite that trained the trial first."""
    tuning: bool = False
    """Whether it only chose among settings of a method: no suite that ran since reports it. Its test error is no result then."""
    status: Literal["done", "failed"]
    """`done` or `failed`."""
    reason: str | None = None
    """Why the trial failed; missing where it is done."""
    spec: dict[str, Any]
    """All that determines the trial, with every default written out."""
    dataset: str
    """The data set as tables call it."""
    recipe: str
    """The recipe in short: epochs, batch size, learning rate, and a hash that tells recipes apart that read alike."""
    precision: str
    """What really rounded the numbers: `fp32`, `tf32`, `bf16`, or `tf32 in convolutions`, which a `default` is on GPUs that
    have TF32. `, compiled` and `, stacked` follow where the recipe says so. `default` where no worker could train the trial."""
    epochs: int
    """Epochs of the main training; 0 for a teacher that was used as it is."""
    teacher: str | None
    """The teacher's network as tables call it, with how it was trained unless that was from scratch; several are joined by `and`.
    Missing for methods that read no teacher. All other columns on the teacher are of the first, where there are several."""
    student: str
    """The network that was trained, as tables call it."""
    method: str
    """The method, such as `kd` or `ft+kd`; `pretrained` for a teacher that was used as it is."""
    setting: str | None = None
    """The method with the parameters that differ from the defaults, such as `kd (temperature=2)`."""
    seed: int
    """Seed of the trial."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know, such as how the method handles this pair."""

    test_error_pct: float | None = None
    """Test error after the last epoch, in percent. This is the headline."""
    test_top5_error_pct: float | None = None
    """Percent of the test images whose class is not among the five with the largest logits; missing where there are fewer than 10
    classes. This and the next columns are of the last epoch. Records of earlier versions lack them, and those of teachers."""
    test_nll: float | None = None
    """Mean negative log-likelihood of the test images' classes, in nats."""
    test_ece_pct: float | None = None
    """Expected calibration error on the test images, in percent: how far the probability of the predicted class is from how often
    it is right, over 15 bins of equal width."""
    test_adaptive_ece_pct: float | None = None
    """The same over 15 bins with equally many images."""
    teacher_agreement_pct: float | None = None
    """Percent of the test images for which the student predicts what the teacher predicts, right or wrong; missing for methods that
    read no teacher."""
    teacher_kl: float | None = None
    """Mean of KL(teacher || student) over the test images, in nats, at temperature 1; missing for methods that read no teacher."""
    best_test_error_pct: float | None = None
    """Lowest test error of all epochs, in percent. It is stored for comparison with papers that report it, and never is a
    headline."""
    best_epoch: int | None = None
    """The epoch with the lowest test error, counted from 1."""
    validation_error_pct: float | None = None
    """Error on the held-out training images after the last epoch, in percent; missing where none are held out."""
    selected_test_error_pct: float | None = None
    """Test error in percent at the epoch with the lowest validation error."""
    selected_epoch: int | None = None
    """The epoch with the lowest validation error, counted from 1."""
    train_error_pct: float | None = None
    """Error on the training images in percent, as they were augmented and as the weights were during the last epoch."""
    train_loss: float | None = None
    """Mean of the whole loss in the last epoch."""
    teacher_error_pct: float | None = None
    """The teacher's test error in percent. This and the next columns are in the students' arithmetic."""
    teacher_top5_error_pct: float | None = None
    """The teacher's top-5 error on the test images, in percent, from 10 classes on."""
    teacher_nll: float | None = None
    """The teacher's mean negative log-likelihood on the test images, in nats."""
    teacher_ece_pct: float | None = None
    """The teacher's expected calibration error on the test images, in percent."""
    teacher_adaptive_ece_pct: float | None = None
    """The same over 15 bins with equally many images."""
    student_params: int | None = None
    """Parameters of the network that would be deployed."""
    student_macs: int | None = None
    """Multiply-accumulate operations of the network that would be deployed, for one image."""
    teacher_params: int | None = None
    """Parameters of the teacher."""
    teacher_macs: int | None = None
    """Multiply-accumulate operations of the teacher, for one image."""
    extra_params: int | None = None
    """Parameters that were trained beside the student and dropped afterwards."""
    stage_epochs: int | None = None
    """Epochs in which the student was trained before the main training."""
    stages: str | None = None
    """How often stages that learn from the teacher alone are trained: `per-seed` or `per-teacher`; missing where the method has
    none."""
    start_weights_sha256: str | None = None
    """Hash of the tensors that the student took over from `weights`; missing where it started from its own initialisation."""
    weights_sha256: str | None = None
    """Hash of the trained weights."""
    teacher_weights_sha256: str | None = None
    """Hash of the weights of the teacher that was learnt from, the first where there are several. A student whose teacher has
    others now is stale."""
    other_teachers_weights_sha256: tuple[str, ...] = ()
    """The same of further teachers, in their order, where the student learnt from several at once."""
    teacher_norms_folded: int | None = None
    """How many batch norms of the teacher were folded into the convolutions before them, for speed."""

    method_code: str
    """Hash of the code of the method and of plugins. A trial whose code has another one now is stale."""
    core_code: str
    """Hash of the code of kdbench that can change a number."""
    data_fingerprint: str
    """Hash of the images, labels and class names. It begins with `names-and-sizes:` where images are streamed and only the names
    and sizes of the files were read."""
    data: Data | None = None
    """What the images were; missing in records of earlier versions."""

    train_s: float | None = None
    """Seconds that the training would take alone: the method's own steps, the teacher's forward passes where it reads them, and the
    data; stages before the main training included."""
    data_s: float | None = None
    """Of `train_s`, seconds for the data."""
    teacher_s: float | None = None
    """Of `train_s`, seconds for the teacher's forward passes."""
    startup_s: float | None = None
    """Seconds for compiling and for recording CUDA graphs. They are not part of `train_s`."""
    train_images_per_s: float | None = None
    """Training images per second of the main training, as in `train_s`: the median over its epochs."""
    inference_images_per_s: float | None = None
    """Images per second of the network that would be deployed, without gradients."""
    teacher_inference_images_per_s: float | None = None
    """Images per second of the teacher, without gradients."""
    peak_mem_mib: float | None = None
    """Most memory in MiB: the student's own on CUDA, that of the whole process on a processor."""
    jobs_on_machine: int = 1
    """How many jobs of the run trained on the machine at once, at most, while this one did. Where it is above 1, seconds and speeds
    are those of a machine that had other work. Jobs of other runs, as there are with --claim, are not counted."""
    environment: Environment
    """What the trial ran on."""
    planned: str | None = None
    """When a run first planned to train the trial, in UTC; missing in records of earlier versions. It stays the same when the trial
    is continued or trained again."""
    planned_again: str | None = None
    """When the training that the record tells of was planned, in UTC, where the trial had ended before, or was planned before
    and `--rerun all` began it anew. It stays the same when that training is continued, and when it starts again because its
    checkpoint cannot be used."""
    first_finished: str | None = None
    """When the trial was first done, in UTC, where it was trained again since."""
    finished: str
    """When the trial ended, in UTC."""

    @property
    def teachers_sha256(self) -> tuple[str | None, ...]:
        """The hashes of all teachers' weights, as they were learnt from."""
        return (self.teacher_weights_sha256, *self.other_teachers_weights_sha256)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status == "done" and (self.test_error_pct is None or self.weights_sha256 is None):
            raise ValueError("a record that is done has a test error and the hash of its weights")
        if self.status == "failed" and not self.reason:
            raise ValueError("a failed record has a reason")
        return self


def newer_keys(problem: ValidationError) -> list[str]:
    """The keys that only a newer kdbench writes, where they are all that is wrong with a record; else none."""
    mistakes = problem.errors()
    if any(mistake["type"] != "extra_forbidden" for mistake in mistakes):
        return []
    return [".".join(map(str, mistake["loc"])) for mistake in mistakes]


def why_unreadable(problem: ValidationError) -> str:
    """Why a record cannot be read, as the end of a sentence on it."""
    if keys := newer_keys(problem):
        return f"a newer kdbench wrote it, with {', '.join(keys)}, so update kdbench"
    return f"it is not a whole record ({counted(problem.error_count(), 'mistake')})"
