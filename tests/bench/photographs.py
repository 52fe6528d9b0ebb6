"""JPEGs of ImageNet's usual size: smooth colours under a little noise, which compress as photographs do."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photographs(root: Path, train: int) -> None:
    """Two classes in train/ and val/, 500x375, about 66 kB each."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", 2)):
        for label in range(2):
            (root / split / f"n{label}").mkdir(parents=True)
            for i in range(count // 2):
                coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                fine = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
                noisy = (fine + random.integers(-12, 13, fine.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(root / split / f"n{label}" / f"{i:03}.JPEG", quality=90)
