"""The harness for those who call it from Python: a suite in one call, a model or a method without a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, cast

from torch import Tensor

from kdbench import models
from kdbench.errors import KdbenchError, refuse_no_list
from kdbench.method.interface import METHODS, USUAL_BATCH, Composition, Pair, PairError, TeacherParts
from kdbench.method.outputs import Outputs, Shapes
from kdbench.method.specs import build_part, resolve_methods
from kdbench.models import Network
from kdbench.paths import expanded
from kdbench.spec.record import PROTOCOL
from kdbench.spec.validation import validated
from kdbench.suite.plugins import load_plugins

if TYPE_CHECKING:
    import pandas as pd

    from kdbench.training.deployed import Deployed


def run_suite(
    suite: str | Path,
    *,
    results: str | Path = "results",
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    device: str = "auto",
    lanes: int = 0,
    stop_after_s: float | None = None,
    rerun: Literal["missing", "failed", "weights", "all"] = "missing",
    plugins: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Train what a suite still needs and return its trials, quietly.

    Args:
        suite: a shipped suite's name, or a path to a YAML file.
        results: the directory where trials are kept.
        methods: only these of the suite's methods, and those that it lacks with their defaults; all of the suite's unless given.
        seeds: these instead of the suite's.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        lanes: how many students train at once; 0 for all of a cohort. It changes no result.
        stop_after_s: seconds after which it stops at the end of the epoch; the same call goes on from there.
        rerun: `missing` takes up what is not done; `failed` that and what failed; `weights` what is not done and, of a suite with
            `keep_students: true`, the finished students whose weights are not there, whole; `all` every student anew.
        plugins: files, or folders of them, with methods, models or data sets of your own.

    Returns:
        One row per student with the columns of `load_results`; `status` is `done`, `failed` (see `reason`), or how far it came.

    Raises:
        KdbenchError: a mistake in the suite or in the arguments; nothing was started.
    """
    refuse_no_list("methods", methods, example=["kd", "ft"])
    refuse_no_list("seeds", seeds, example=[0, 1, 2])
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
            raise KdbenchError(f"seeds: {seed!r} is no whole number. Write seeds=[0, 1, 2].")
    # Methods build networks with this module, and planning, which imports the methods, needs none of what follows.
    from kdbench.results.store import Store
    from kdbench.runner.frame import plan_frame
    from kdbench.runner.plan import Rerun, make_plan
    from kdbench.runner.progress import Silent
    from kdbench.runner.run import Options, execute
    from kdbench.suite.resolve import load_suite

    load_plugins(plugins)
    loaded, store = load_suite(suite, methods=methods, seeds=[int(seed) for seed in seeds]), Store(Path(results), protocol=PROTOCOL)
    options = Options(device=device, lanes=lanes, stop_after_s=stop_after_s, rerun=Rerun(rerun))
    execute(loaded, store, options=options, progress=Silent())
    return plan_frame(make_plan(loaded, store))


def build_model(
    name: str, *, num_classes: int = 10, in_channels: int = 3, hooks: Sequence[str] = (), image_size: int | None = None
) -> Network:
    """A freshly initialised network, which takes images (B, in_channels, H, W) to `Outputs`.

    Args:
        name: one of `kdbench list models`, or a classifier of torchvision or timm, such as `torchvision/resnet34`.
        num_classes: K, the number of logits.
        in_channels: of the images.
        hooks: of a classifier that is no `Network`, the modules with which its groups end, shallow to deep; the usual families of
            torchvision and timm need none.
        image_size: of a classifier of your own that takes images of one size alone, their height in pixels.

    Raises:
        KdbenchError: nothing of that name, or hooks that it lacks.
    """
    refuse_no_list("hooks", hooks, example=["layer1", "layer2"])
    load_plugins()
    return models.build_model(name, num_classes=num_classes, in_channels=in_channels, hooks=tuple(hooks), image_size=image_size)


def load_student(folder: str | Path, *, normalise: bool = False, plugins: Sequence[str | Path] = ()) -> Deployed:
    """The network that a finished trial would deploy, from images (B, C, H, W) to logits (B, K).

    It is on the CPU, in evaluation mode, and errs on the test images as its record says, whatever its method predicts with. The
    student's own weights are `weights.safetensors` in the folder; those of a network of torchvision, of timm or of a plain module
    have the network's names after `body.`.

    What feeding it needs are attributes of it: `classes`, the names of the logits in order; `image_shape`, (C, H, W); `mean` and
    `std`, one number for each channel, of pixels scaled to 0..1; and `resize`, how an image of another size was brought to that
    shape, always bilinear and antialiased: `{"height_px": H, "width_px": W}` without regard to its shape, `{"shorter_side_px": N}`
    before its centre was cut out, None where the data set has one size. Files were read as a viewer shows them: upright, in sRGB,
    on white, with 8 bits; and made grey where C is 1.

    Args:
        folder: a trial's, `results/trials/...`; teachers are kept there, and students of suites with `keep_students: true`.
        normalise: whether it takes images as bytes, uint8, and normalises them itself, with `mean` and `std` as buffers that are
            exported and moved with it. Otherwise it takes float32 images that are normalised already.
        plugins: files, or folders of them, with the networks and methods of your own that it uses.

    Raises:
        KdbenchError: nothing was kept there, or it is damaged, or it needs a plugin that was not given, or `normalise` is asked for
            and an earlier version kept it, without mean and std. A student that is to normalise was given no bytes.
    """
    from kdbench.runner.students import load

    load_plugins(plugins)
    return load(expanded(folder), normalise=normalise)


def build_method(
    name: str,
    *,
    student: Outputs,
    teacher: Outputs,
    labels: Tensor | None = None,
    teacher_parts: TeacherParts | None = None,
    image_shape: tuple[int, int, int] | None = None,
    batch_size: int | None = None,
    **parameters: Any,
) -> Composition:
    """A method for a training loop of your own, on the student's device; its adapters are drawn from torch's global stream.

    Some methods have stages before the main training, such as FT's paraphraser. `kdbench.train_stages(method, teacher, loader)`
    trains them; before that, `losses` is refused.

    Args:
        name: such as `ft`, or `ft+kd` for both.
        student: what the student gives for any batch; its shapes are read.
        teacher: the same of the teacher.
        labels: (N,), int64, of all training images, for methods with a memory bank.
        teacher_parts: `teacher.teacher_parts()` of a `Network`, for methods that read the teacher's classifier or batch norms.
        image_shape: (C, H, W), for methods with a network of their own.
        batch_size: how many images a batch has, so that methods which relate them can refuse too few or too many.
        parameters: those that differ from their defaults, such as `k=2`, or by part, such as `ft={"k": 2}`.

    Raises:
        PairError: the method cannot do this pair, or needs what was not given.
        KdbenchError: an unknown method or parameter.
    """
    from kdbench.training.own_loop import (
        OwnLoop,  # it imports the engine, which methods that build networks with this module do not need
    )

    load_plugins()
    parts = name.split("+")
    by_part = len(parts) > 1 or parameters.keys() == {name}
    given = parameters if by_part else {name: parameters}
    for outputs in (student, teacher):
        if not isinstance(outputs, Outputs):
            raise KdbenchError(
                f"build_method: a {type(outputs).__name__} is no Outputs. Give what the network returns for a batch."
            )
    for key in given:
        if key not in parts:
            raise KdbenchError(f"build_method: '{name}' has no part '{key}'. Give parameters by part: {parts[0]}={{...}}.")
    for part in parts:
        validated(METHODS.get(part).Params, given.get(part, {}), source="build_method", path=part)
    batch = batch_size or USUAL_BATCH
    pair = _PartlyKnown(student.shapes(), teacher.shapes(), labels, teacher_parts, image_shape, batch, batch)
    methods = {spec.name: build_part(spec, cast(Pair, pair)) for spec in resolve_methods(name, given)}
    return OwnLoop(methods).to(student.logits.device)


@dataclass(frozen=True)
class _PartlyKnown:
    """Stands for a `Pair`; what was not given is refused when a method asks for it."""

    student: Shapes
    teacher: Shapes
    known_labels: Tensor | None
    known_parts: TeacherParts | None
    known_shape: tuple[int, int, int] | None
    smallest_batch: int
    largest_batch: int

    @property
    def labels(self) -> Tensor:
        if self.known_labels is None:
            raise PairError("it needs the labels of the training images. Give them to build_method as labels=...")
        return self.known_labels.cpu()

    @property
    def teacher_parts(self) -> TeacherParts:
        if self.known_parts is None:
            raise PairError("it needs parts of the teacher. Give them to build_method as teacher_parts=teacher.teacher_parts()")
        return self.known_parts

    @property
    def image_shape(self) -> tuple[int, int, int]:
        if self.known_shape is None:
            raise PairError("it needs the shape of the images. Give it to build_method as image_shape=(C, H, W)")
        return self.known_shape
