"""A test set is a sample, too: how much a difference would change with other test images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def image_variance(over: NDArray[np.bool_], method: NDArray[np.bool_]) -> float:
    """Variance of the mean gain of `method` over `over`, in squared percentage points, that comes from the choice of test images.

    The crossed random effects of seed and image: gain = mean + seed + image + rest, estimated from mean squares. The rest, which
    also has the interaction of seed and image, is in the variance over seeds already, so that the two variances add up.

    Args:
        over: (S, I), whether the reference was wrong, for each seed and image.
        method: (S, I), whether the method was.
    """
    seeds, images = map(int, over.shape)
    by_image = (over.sum(0) - method.sum(0, dtype=np.int64)) / seeds
    by_seed = (over.sum(1) - method.sum(1, dtype=np.int64)) / images
    squares = int((over ^ method).sum()) - images * float(by_seed @ by_seed) - seeds * float(by_image @ by_image)
    rest = (squares + seeds * images * float(by_image.mean()) ** 2) / ((seeds - 1) * (images - 1))
    return 1e4 * max(0.0, float(by_image.var(ddof=1)) - rest / seeds) / images
