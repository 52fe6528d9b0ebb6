"""Views that are made from the images of a batch: turned, or mixed with each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method.batch import View

QUARTER_TURNS = (1, 2, 3)
"""By how many quarter turns, counter-clockwise, the view `rotations` turns each image."""


def rotations(images: Tensor, labels: Tensor) -> View:
    """Each image turned by 90, 180 and 270 degrees: those of image b stand at 3 b to 3 b + 2.

    Args:
        images: (B, C, S, S).
        labels: (B,).
    """
    turned = torch.stack([torch.rot90(images, turns, (2, 3)) for turns in QUARTER_TURNS], dim=1).flatten(0, 1)
    return View(turned.contiguous(memory_format=torch.channels_last), labels.repeat_interleave(len(QUARTER_TURNS)))


def mixup(images: Tensor, labels: Tensor, *, num_classes: int, generator: torch.Generator) -> View:
    """Each image mixed with another one of the batch, all in one proportion, which is drawn uniformly from 0 to 1.

    Args:
        images: (B, C, H, W).
        labels: (B,).
        num_classes: K.
        generator: on the CPU.

    Returns:
        (B, C, H, W), with the shares of the classes (B, K).

    Source: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, arXiv:1710.09412, with alpha = 1.
    """
    share = float(torch.rand((), generator=generator))
    partner = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
    one_hot = F.one_hot(labels, num_classes).to(images.dtype)
    mixed = share * images + (1 - share) * images[partner]
    return View(mixed.contiguous(memory_format=torch.channels_last), share * one_hot + (1 - share) * one_hot[partner])
