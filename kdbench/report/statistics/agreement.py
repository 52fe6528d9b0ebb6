"""Which test images methods get wrong together: from bits, one for each seed and image.

Arrays `wrong` are (S, I) bool: row s is of the student of seed s, and all arrays of a call have the same seeds and images in one
order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

BoolArray = NDArray[np.bool_]


def mcnemar(first: BoolArray, second: BoolArray) -> float:
    """p of McNemar's test, of all seeds together: whether two methods err on different numbers of images.

    The same images are tested with every seed, so that counts of several seeds must not just be added up: images are clusters
    (Durkalski, Palesch, Lipsitz and Rust, 2003). The test is of the very students that were trained. It says how sure their
    difference is over new test images, and nothing about new seeds.
    """
    lead = first.sum(0) - second.sum(0).astype(float)
    squares = float(lead @ lead)
    return float(stats.chi2.sf(lead.sum() ** 2 / squares, 1)) if squares else 1.0


def shared_errors(wrong: Mapping[str, BoolArray]) -> pd.DataFrame:
    """Of the errors of a row's method, the share that a column's method with the same seed also makes, in percent.

    Methods without an error have missing values.
    """
    counts = pd.DataFrame(
        [[int((one & other).sum()) for other in wrong.values()] for one in wrong.values()], index=list(wrong), columns=list(wrong)
    )
    own = pd.Series(np.diag(counts), wrong).replace(0, np.nan)
    return 100 * counts.div(own, axis=0)


def beside_teacher(wrong: Mapping[str, BoolArray], teacher: BoolArray) -> pd.DataFrame:
    """How each method errs where its teacher is right and where it is wrong.

    Args:
        wrong: by method.
        teacher: (I,) or (S, I), whether the teacher of a seed was wrong.

    Returns:
        One row for each method: `lost_pct`, of the images that the teacher gets right, the share that the student gets wrong;
        `corrected_pct`, of those that the teacher gets wrong, the share that the student gets right. Missing where there are none.
    """
    rows = {}
    for method, errors in wrong.items():
        of = np.broadcast_to(teacher, errors.shape)
        right, mistaken = (~of).sum(), of.sum()
        rows[method] = {
            "lost_pct": 100 * (errors & ~of).sum() / right if right else np.nan,
            "corrected_pct": 100 * (~errors & of).sum() / mistaken if mistaken else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["lost_pct", "corrected_pct"])
