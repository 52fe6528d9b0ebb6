"""The usual loop, as a baseline for speed: PIL transforms in workers, NCHW, eager, one method at a time, `.item()` per step."""

import time
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdbench import Batch
from kdbench.data import Split
from kdbench.method.composition import Composition


def best_of_the_field(device: torch.device) -> AbstractContextManager[None]:
    """What a fast loop sets: on CUDA, kernels chosen by trial; nothing is deterministic."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=device.type == "cuda", allow_tf32=False)


class PilImages(Dataset):
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
) -> float:
    """Seconds of one epoch."""
    cuda = device.type == "cuda"
    loader = DataLoader(data, batch_size=batch_size, shuffle=True, num_workers=workers, pin_memory=cuda)
    parameters = [*student.parameters(), *method.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator()
    student.train()
    teacher.eval()
    total = 0.0
    began = time.perf_counter()
    for batch in loader:
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
        loss.backward()
        optimiser.step()
        total += loss.item()
    return time.perf_counter() - began
