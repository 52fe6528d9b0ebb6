"""The result of a trial as it lies on disk: about 2 kB of JSON with units in its keys."""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

PROTOCOL = 2
"""Raised whenever the same spec would give other numbers; records of another protocol are never mixed with ours."""


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


class Record(BaseModel):
    """One trial's result. Everything but the keys in `MEASURED` is a function of the spec, the data and the code.

    Errors are in percent of the test images. `test_error_pct` is the last epoch's and the headline. `best_test_error_pct` is the
    best epoch's on the test set, `best_epoch` counted from 1: stored for comparison with papers that report it, never a headline.
    Where the data set declares a validation split, `validation_error_pct` is the last epoch's error on it, and `selected_*` the
    test error at the epoch with the lowest one. `student_params` and `student_macs` are of the network that would be deployed,
    `extra_params` is the number of trainable parameters that are dropped after training, and `stage_epochs` of epochs in stages
    that trained the student before. `setting` is the method with the parameters that are not the defaults. `start_weights_sha256`
    is the hash of the tensors that a student with `weights` took over before its training, `weights_sha256` of those that
    training left. `train_images_per_s` and `train_s` are what the method would cost alone: its own steps, the teacher's forward
    passes where it reads them, and the data. `startup_s`, which is no part of them, is what compiling and recording graphs took.
    `peak_mem_mib` is the lane's own on CUDA and the whole process's on the CPU.
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
    start_weights_sha256: str | None = None
    weights_sha256: str | None = None
    teacher_weights_sha256: str | None = None
    teacher_norms_folded: int | None = None

    method_code: str
    core_code: str
    data_fingerprint: str

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
