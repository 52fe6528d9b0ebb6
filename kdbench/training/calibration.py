"""Whether a network is right as often as it says: expected calibration errors, in percent."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

BINS = 15

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp] | npt.NDArray[np.bool_]


def calibration_error_pct(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """The expected calibration error over 15 bins of equal width.

    Guo, Pleiss, Sun and Weinberger, 2017, arXiv:1706.04599: bin m holds confidences in (m/15, (m+1)/15].

    Args:
        confidence: (N,), the probability of the predicted class.
        right: (N,), whether the prediction is right.
    """
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    return _gap_pct(confidence, right.astype(np.float64), (bins == m for m in range(BINS)))


def adaptive_calibration_error_pct(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """The same over 15 bins with equally many images, or one more in the first ones.

    Nguyen and O'Connor, 2015, arXiv:1508.05154. Images of equal confidence share what is right among them equally, so that the
    order of images changes nothing.

    Args:
        confidence: (N,), the probability of the predicted class.
        right: (N,), whether the prediction is right.
    """
    _, value, images = np.unique(confidence, return_inverse=True, return_counts=True)
    share = np.bincount(value, weights=right) / images
    return _gap_pct(confidence, share[value], np.array_split(np.argsort(confidence, kind="stable"), BINS))


def _gap_pct(confidence: Floats, right: Floats, bins: Iterable[Places]) -> float:
    """The gaps of the bins between what is right and the confidence, weighted by their images."""
    gap = right - confidence
    return 100 * math.fsum(abs(math.fsum(gap[places])) for places in bins) / len(gap)
