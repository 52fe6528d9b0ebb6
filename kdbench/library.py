"""The harness for those who call it from Python: a suite in one call, a model or a method without a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, cast

from torch import Tensor

from kdbench import models
from kdbench.errors import KdbenchError, refuse_no_list
from kdbench.method.composition import Composition, refuse_contradictions
from kdbench.method.interface import METHODS
from kdbench.method.outputs import Outputs, Shapes
from kdbench.method.pair import USUAL_BATCH, Pair, PairError, TeacherParts
from kdbench.method.specs import build_part, resolve_methods
from kdbench.models import Network
from kdbench.paths import expanded
from kdbench.spec.record import PROTOCOL
from kdbench.spec.trial import RAW
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
    engine: str = "",
    address: str = "",
    lanes: int = 0,
    claim: bool = False,
    claim_timeout_s: float = 600,
    device_timeout_s: float = 600,
    stop_after_s: float | None = None,
    rerun: Literal["missing", "failed", "weights", "all"] = "missing",
    plugins: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Train what a suite still needs, without printing, and return its students as a frame.

    Args:
        suite: a shipped suite's name, or a path to a YAML file.
        results: the directory where trials are kept.
        methods: take these methods instead of the suite's, in this order. One that the suite lacks has its default parameters.
        seeds: take these seeds instead of the suite's.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`. With several processes `all`, `cuda:0,cuda:1`, or `cpu:2` for two on the CPU.
        engine: where jobs run. `here` is this process, `local` a process for each device, `ray` a Ray cluster. Unless given, it is
            `here` for one device.
        address: of the Ray cluster, or `auto` for the one that this machine is part of. Unless given, `ray` uses this machine.
        lanes: how many students train at once, at most; 0 for as many as can. It changes no result.
        claim: let other runs that claim work on the same directory, on this machine and on others. Each takes jobs that no other
            has, and the call ends when all trials have ended, whoever trained them.
        claim_timeout_s: take over the jobs of a run that has shown no sign of life for so many seconds.
        device_timeout_s: end this process with status 1 if a GPU has not answered for so many seconds. The same call then continues
            from the last whole epoch.
        stop_after_s: stop at the end of the epoch after so many seconds. The same call continues from there.
        rerun: which students to train. `missing`: those that are not done. `failed`: these, and those that failed. `weights`: those
            that are not done, and finished ones that lack the weights which `keep_students: true` asks for. `all`: every student,
            from the start.
        plugins: Python files, or folders of them, with methods, networks or data sets of your own.

    Returns:
        One row for each student, with the columns of `load_results`. `status` says how far it came; `reason` says why it failed.

    Raises:
        KdbenchError: there is a mistake in the suite or in the arguments. Nothing was started.
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
    options = Options(
        device=device,
        lanes=lanes,
        stop_after_s=stop_after_s,
        rerun=Rerun(rerun),
        engine=engine,
        address=address,
        claim=claim,
        claim_timeout_s=claim_timeout_s,
        device_timeout_s=device_timeout_s,
    )
    execute(loaded, store, options=options, progress=Silent())
    return plan_frame(make_plan(loaded, store))


def build_model(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    hooks: Sequence[str] | Literal["raw"] = (),
    image_size: int | None = None,
) -> Network:
    """A network with new weights. It takes images (B, in_channels, H, W) and gives `Outputs`.

    Args:
        name: one of `kdbench list models`, or a classifier of torchvision or timm, such as `torchvision/resnet34`.
        num_classes: the number of classes, K.
        in_channels: the number of channels of an image.
        hooks: the modules with which the groups end, shallow to deep. Only a plain classifier needs them, and kdbench knows those
            of the usual families of torchvision and timm. `"raw"` keeps the usual groups and reads them before the norm and the
            activation that follow them.
        image_size: the height of images in pixels, for a classifier of your own that takes one size alone.

    Raises:
        KdbenchError: there is no network of that name, or it has no such modules.
    """
    ends = RAW if hooks == "raw" else hooks
    refuse_no_list("hooks", ends, example=["layer1", "layer2"])
    load_plugins()
    return models.build_model(name, num_classes=num_classes, in_channels=in_channels, hooks=tuple(ends), image_size=image_size)


def load_student(folder: str | Path, *, normalise: bool = False, plugins: Sequence[str | Path] = ()) -> Deployed:
    """The trained network of a finished trial. It takes images (B, C, H, W) and gives logits (B, K).

    It is a torch module on the CPU, in evaluation mode. It gives the test error of its record, also where the method predicts with
    more than the student.

    Its attributes say which images it takes:

    `classes` are the names of the logits, in order. `image_shape` is (C, H, W). `mean` and `std` have one number for each channel,
    for pixels scaled to 0..1. `resize` says how images of another size were resized, bilinear and antialiased:
    `{"height_px": H, "width_px": W}` without regard to their shape, or `{"shorter_side_px": N}` before the centre was cropped. It
    is None where the data set has one size. Files were read as a viewer shows them: upright, in sRGB, on white, with 8 bits, and
    grey where C is 1.

    Args:
        folder: the folder of a trial, `results/trials/...`. Teachers are kept, and students if the suite has `keep_students: true`.
        normalise: whether the network takes images as bytes (uint8) and normalises them itself. `mean` and `std` are then buffers,
            which are exported and moved with it. Otherwise it takes float32 images that you have normalised.
        plugins: Python files, or folders of them, with the networks and methods of your own that it uses.

    Raises:
        KdbenchError: nothing was kept there, it is damaged, or it needs a plugin that was not given. Or it is to normalise, and an
            earlier version kept it without mean and std. When it is called: it is to normalise, and was given no bytes.
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
    ce: float | dict[int, float] | None = None,
    **parameters: Any,
) -> Composition:
    """A method for a training loop of your own, on the student's device.

    Its adapters are initialised from torch's global random numbers. Some methods have stages before the main training, such as FT's
    paraphraser: train them with `kdbench.train_stages(method, teacher, loader)`. Before that, `losses` is refused.

    Args:
        name: a method, such as `ft`, or several, such as `ft+kd`.
        student: what the student gives for any batch. Only its shapes are read.
        teacher: what the teacher gives for it. For a method that learns from several teachers, it is the first one's with `others`.
        labels: (N,), int64, the labels of all training images, for methods with a memory bank.
        teacher_parts: `teacher.teacher_parts()` of a `Network`, for methods that read the teacher's classifier or batch norms.
        image_shape: (C, H, W), for methods with a network of their own.
        batch_size: how many images a batch has. Methods that compare images with each other refuse too few or too many.
        ce: the weight of the cross-entropy, in place of what the methods say: a number, or numbers by the epoch from which on they
            hold, such as `{0: 1, 30: 0.5}`.
        parameters: parameters that differ from their defaults, such as `k=2`; of several methods by name, such as `ft={"k": 2}`.

    Raises:
        PairError: the method cannot train this pair, or it needs what was not given.
        KdbenchError: there is no such method or parameter.
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
    others = tuple(outputs.shapes() for outputs in teacher.others)
    pair = _PartlyKnown(student.shapes(), teacher.shapes(), labels, teacher_parts, image_shape, batch, batch, others)
    methods = {spec.name: build_part(spec, cast(Pair, pair)) for spec in resolve_methods(name, given)}
    refuse_contradictions(methods, ce)
    return OwnLoop(methods, ce).to(student.logits.device)


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
    others: tuple[Shapes, ...]

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
