"""The rungs between the plain loop and kdbench, each with one lever more than the one before it."""

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from plain import best_of_the_field
from torch import nn

from kdbench import Batch
from kdbench.data import ResidentLoader, batch_bounds, epoch_plan
from kdbench.models.folding import folded
from kdbench.spec.trial import TrialSpec
from kdbench.suite.plugins import load_shipped
from kdbench.training.builder import Builder


@dataclass(frozen=True)
class Levers:
    """What a loop over images on the device does better than the plain one."""

    waits: bool = True
    shared: bool = False
    channels_last: bool = False
    folded: bool = False
    fused: bool = False


RUNGS = {
    "images on the device": Levers(),
    "no `.item()` in the step": Levers(waits=False),
    "channels last": Levers(waits=False, channels_last=True),
    "folded teacher": Levers(waits=False, channels_last=True, folded=True),
    "fused SGD": Levers(waits=False, channels_last=True, folded=True, fused=True),
    "one teacher for all": Levers(waits=False, channels_last=True, folded=True, fused=True, shared=True),
}


def loop_seconds(builder: Builder, specs: list[TrialSpec], levers: Levers) -> float:
    """Seconds of one epoch of every method, in the arithmetic of the plain loop."""
    load_shipped()
    with best_of_the_field(builder.device):
        return _loop_seconds(builder, specs, levers)


def _loop_seconds(builder: Builder, specs: list[TrialSpec], levers: Levers) -> float:
    recipe, taught_by = specs[0].recipe, specs[0].teacher
    assert taught_by
    layout = torch.channels_last if levers.channels_last else torch.contiguous_format
    original = builder.network(taught_by.student).eval()
    teacher: nn.Module = folded(original, image_shape=builder.dataset.image_shape)[0] if levers.folded else original
    teacher = teacher.to(memory_format=layout)
    lanes = []
    for spec in specs:
        student = builder.student(spec).to(memory_format=layout).train()
        method = builder.composition(spec, original.teacher_parts())
        parameters = [*student.parameters(), *method.parameters()]
        options = {"fused": True} if levers.fused else {}
        lanes.append((student, method, torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, **options)))
    data = builder.training_data(recipe.augmentation)
    assert isinstance(data, ResidentLoader)
    plan = epoch_plan(len(data), recipe.augmentation, torch.Generator()).to(builder.device)
    began = time.perf_counter()
    for group in [lanes] if levers.shared else [[lane] for lane in lanes]:
        total = 0.0
        for start, end in batch_bounds(len(data), recipe.batch_size):
            images, labels, indices = data.batch(plan, start, end)
            images = images.contiguous(memory_format=layout)
            target = None
            if any(method.reads_teacher for _, method, _ in group):
                with torch.no_grad():
                    target = teacher(images)
            for student, method, optimiser in group:
                output = student(images)
                batch = Batch(images, labels, indices, 0, 1, torch.Generator())
                terms = method.losses(output, target or output, batch)
                loss = sum(terms.values(), torch.zeros((), device=builder.device))
                if method.ce_weight:
                    loss = loss + method.ce_weight * F.cross_entropy(method.predict(output), labels)
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                total += loss.item() if levers.waits else 0.0
    if builder.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
