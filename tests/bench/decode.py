"""How fast images of ImageNet's size are decoded and cropped: `python tests/bench/decode.py --workers 1 2 4 8 16`.

Images per second of the data set `imagestream`, batches of 64, by the number of its worker processes, start included; then, where
there is CUDA, of torchvision's nvJPEG, which decodes on the GPU and leaves cropping out. JPEGs are made first: photographs' size,
500x375, about 66 kB each. Prints a line of JSON for each repetition.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from photographs import write_photographs

from kdbench.data import FileSplit, ImageStream, StreamedLoader
from kdbench.errors import first_line
from kdbench.spec.recipe import Augmentation, ResizedCrop

BATCH = 64


def streamed(root: Path, *, workers: int, device: torch.device) -> float:
    """Seconds of one epoch of augmented and normalised batches on the device."""
    data = ImageStream(ImageStream.Params(root=root, label="photographs", size=224, workers=workers), cache=root).load()
    augmentation = Augmentation(pad=0, resized_crop=ResizedCrop())
    assert isinstance(data.train, FileSplit)
    loader = StreamedLoader(data.train, mean=data.mean, std=data.std, device=device, augmentation=augmentation)
    began = time.perf_counter()
    for draw in loader.epoch(torch.Generator().manual_seed(0), batch_size=BATCH):
        draw()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def on_the_gpu(files: list[Path]) -> float:
    """Seconds of decoding alone, by nvJPEG, from files that are read before."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    data = [read_file(str(file)) for file in files]
    torch.cuda.synchronize()
    began = time.perf_counter()
    for first in range(0, len(data), BATCH):
        decode_jpeg(data[first : first + BATCH], mode=ImageReadMode.RGB, device="cuda")
    torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Measure each number of workers, by turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root, given.images)
        files = sorted(root.glob("train/*/*"))
        found: dict[str, list[float]] = {f"{count} workers": [] for count in given.workers}
        if device.type == "cuda":
            found["nvJPEG"] = []
        for _ in range(given.repeats):
            for name, rates in found.items():
                try:
                    seconds = on_the_gpu(files) if name == "nvJPEG" else streamed(root, workers=int(name.split()[0]), device=device)
                except RuntimeError as problem:  # such as that torchvision was built without nvJPEG; the others are worth having
                    print(json.dumps({"decoded by": name, "error": first_line(problem)}), flush=True)
                    continue
                rates.append(round(len(files) / seconds))
                print(json.dumps({"decoded by": name, "images_per_s": rates[-1]}), flush=True)
    medians = {name: statistics.median(rates) for name, rates in found.items() if rates}
    print(json.dumps({"images": given.images, "cores": os.cpu_count(), "device": device.type, "median images_per_s": medians}))


if __name__ == "__main__":
    main()
