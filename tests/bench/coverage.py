"""How often the simultaneous intervals of a comparison hold, for many shapes of spread: `python tests/bench/coverage.py [DRAWS]`.

A row is a number of methods and seeds and a shape of spreads; each cell is the share of experiments in which all intervals
hold, which ought to be 95 %, with the median half width beside it. 20,000 draws take minutes and are exact to 0.3 points.
"""

import sys

import numpy as np

from kdbench.report.statistics.blocks import block_intervals

SIZES = [(2, 5), (3, 3), (3, 5), (7, 3), (7, 5), (7, 10), (27, 3), (27, 5)]
REFERENCE = (1.21, 0.61, 0.43, 0.29, 0.91, 0.25, 0.5)  # of the residuals in results/reference/ft-cifar10-jpeg, scratch first


def spreads(methods: int, draws: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Standard deviations of the methods by shape: (1 or draws, methods). The first is the baseline."""
    one = np.ones(methods)
    return {
        "equal": one[None],
        "as in the reference run": np.resize(REFERENCE, methods)[None],
        "log-normal, sigma 0.4": np.exp(0.4 * random.normal(size=(draws, methods))),
        "from 1 to 2": np.linspace(1, 2, methods)[None],
        "one 3 times the others": np.append(one[1:], 3)[None],
        "one 10 times the others": np.append(one[1:], 10)[None],
        "baseline 3 times the others": np.append(3, one[1:])[None],
    }


def main(draws: int) -> None:
    print(f"{draws:,} draws for each cell\nmethods seeds  spreads                         Dunnett        Tukey")
    for methods, seeds in SIZES:
        random = np.random.default_rng(0)
        for shape, spread in spreads(methods, draws, random).items():
            values = random.normal(size=(draws, methods, seeds)) * spread[:, :, None] + random.normal(size=(draws, 1, seeds))
            cells = []
            for baseline in (0, None):
                intervals = block_intervals(values, baseline=baseline)
                reach = intervals.reach()
                held = (abs(intervals.gains) <= reach).all(1).mean()
                cells.append(f"{100 * held:5.1f} ({np.median(reach):5.2f})")
            print(f"{methods:7} {seeds:5}  {shape:28} {cells[0]:>14} {cells[1]:>14}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
