"""The usual loop, as a baseline for speed: PIL transforms in workers, NCHW, eager, one method at a time, `.item()` per step."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdbench import Batch
from kdbench.data import Split
from kdbench.method.composition import Composition
from kdbench.suite.resolve import load_suite
from kdbench.training.builder import Builder

if TYPE_CHECKING:
    from suite_of_noise import NoiseSuite


def best_of_the_field(device: torch.device) -> AbstractContextManager[None]:
    """What a fast loop sets: on CUDA, kernels chosen by trial, and torch's own TF32 in convolutions; nothing is deterministic."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=device.type == "cuda", allow_tf32=True)


class PilImages(Dataset[tuple[torch.Tensor, int, int]]):
    """Images (N, H, W, 3), uint8, through PIL: pad, random crop, flip, to tensor, normalise."""

    def __init__(self, split: Split, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.images, self.labels = split.images.numpy(), split.labels.tolist()
        size = self.images.shape[1]
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        return self.transform(self.images[index]), self.labels[index], index


def train_epoch(
    student: nn.Module,
    teacher: nn.Module,
    method: Composition,
    data: PilImages,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    uncounted: int = 0,
) -> float:
    """Seconds of one epoch, from the start of the workers, or from the end of so many batches that do not count, to its last step.

    The workers' end, which takes as long as many steps, does not count.
    """
    cuda = device.type == "cuda"
    # A process that was itself spawned would spawn its workers, each of which takes seconds to import torch; loops in use fork.
    forked = "fork" if workers else None
    loader = DataLoader(
        data, batch_size=batch_size, shuffle=True, num_workers=workers, pin_memory=cuda, multiprocessing_context=forked
    )
    parameters = [*student.parameters(), *method.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator()
    student.train()
    teacher.eval()
    total = 0.0
    began = ended = time.perf_counter()
    for number, batch in enumerate(loader):
        if number == uncounted and number:
            began = time.perf_counter()
        images, labels, indices = (tensor.to(device, non_blocking=cuda) for tensor in batch)
        output = student(images)
        target = output
        if method.reads_teacher:
            with torch.no_grad():
                target = teacher(images)
        terms = method.losses(output, target, Batch(images, labels, indices, 0, 1, generator))
        loss = sum(terms.values(), torch.zeros((), device=device))
        if method.ce_weight:
            loss = loss + method.ce_weight * F.cross_entropy(method.predict(output), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        optimiser.step()
        total += loss.item()
        ended = time.perf_counter()
    return ended - began


def plain_ms(suite: NoiseSuite, device: str, *, batches: int, workers: int, folder: Path) -> dict[str, float]:
    """By method, ms per step over so many batches, after as many that do not count."""
    loaded = load_suite(suite.write(folder / "plain.yaml"))
    kind, params = loaded.source
    dataset = kind(params, cache=folder).load()
    builder = Builder(dataset, params, torch.device(device))
    assert isinstance(dataset.train, Split)
    split = Split(*(values[: 2 * batches * suite.batch_size] for values in (dataset.train.images, dataset.train.labels)))
    images, found = PilImages(split, dataset.mean, dataset.std), {}
    with best_of_the_field(builder.device):
        for spec in loaded.trials:
            teacher = builder.network(suite.teacher).to(memory_format=torch.contiguous_format)
            student = builder.student(spec).to(memory_format=torch.contiguous_format)
            method = builder.composition(spec, teacher.teacher_parts())
            seconds = train_epoch(
                student,
                teacher,
                method,
                images,
                batch_size=suite.batch_size,
                workers=workers,
                device=builder.device,
                uncounted=batches,
            )
            found[spec.method] = round(1000 * seconds / batches, 3)
    return found
