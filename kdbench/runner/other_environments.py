"""What was trained in another environment: trained here again, it ends in other bits."""

from collections.abc import Iterable

from kdbench.errors import KdbenchError
from kdbench.method.specs import teacher_label
from kdbench.models.weights import WEIGHTS
from kdbench.results.store import Store
from kdbench.runner.plan import Planned, Status
from kdbench.spec.record import Environment
from kdbench.spec.trial import TrialSpec, teachers_in
from kdbench.training.builder import Builder
from kdbench.training.device import environment, exact
from kdbench.wording import counted


def refuse_other_teachers(anew: Iterable[Planned], todo: Iterable[Planned], *, store: Store, builder: Builder) -> None:
    """A teacher whose weights are lost comes out the same where it was trained, and other elsewhere.

    Raises:
        KdbenchError: it is to be trained elsewhere, and students of some suite that are done, and stay so, had that one.
    """
    lost = [planned for planned in anew if planned.spec.methods and planned.status is not Status.STALE]
    records = [record for record in store.records() if record.status == "done"] if lost else []
    again = {planned.spec.id for planned in todo}
    for teacher in lost:
        spec = teacher.spec.model_dump(mode="json")
        kept = [record for record in records if record.trial not in again and spec in teachers_in(record.spec)]
        if not kept:
            continue
        here = _environment(teacher.spec, builder)
        if any((teacher.record or student).environment != here for student in kept):
            file = store.folder(teacher.spec.id) / WEIGHTS
            raise KdbenchError(
                f"{file}, the weights of the teacher {teacher_label(teacher.spec)}, is missing or damaged. Trained here, it would "
                f"differ from the teacher of {counted(len(kept), 'finished student')}. Put the file back, or choose other "
                "--results."
            )


def trained_elsewhere(todo: Iterable[Planned], *, builder: Builder) -> int:
    """How many of these are done, and were not trained in the environment of here."""
    done = [(planned.spec, planned.record) for planned in todo if planned.status is Status.DONE]
    return sum(record is not None and record.environment != _environment(spec, builder) for spec, record in done)


def _environment(spec: TrialSpec, builder: Builder) -> Environment:
    """What the trial would run on here."""
    with exact(builder.device, precision=spec.recipe.precision, image_shape=builder.dataset.image_shape):
        return environment(builder.device)
