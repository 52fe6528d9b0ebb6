"""The files that a student is deployed as: each is written, and read again to be tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from kdbench.models.weights import write_weights
from kdbench.training.deployed import Deployed
from kdbench.training.evaluation import Predict

BATCH = 3
"""Images of the example that is traced: not 1, which torch takes for a batch that is always 1."""


@dataclass(frozen=True)
class Format:
    """One way of deploying.

    Attributes:
        write: a network that takes bytes (B, C, H, W), its example, and the file.
        read: the file, and a network as it was given to `write`, whose tensors it does not use; from bytes to logits.
        takes: a sentence on what the file is given, or who reads it.
        needs: modules that must be installed, and the extra that brings them.
    """

    write: Callable[[Deployed, Tensor, Path], None]
    read: Callable[[Path, Deployed], Predict]
    takes: str = "It takes images as bytes (uint8, 0 to 255), in batches of any size, and normalises them itself."
    needs: tuple[str, ...] = ()


def _write_safetensors(network: Deployed, example: Tensor, file: Path) -> None:
    write_weights(file, network.state_dict())


def _read_safetensors(file: Path, network: Deployed) -> Predict:
    for tensor in network.state_dict().values():
        tensor.zero_()  # so that what is tested is the file
    network.load_state_dict(load_file(file))
    return network


def _dynamic_shapes() -> tuple[dict[int, torch.export.Dim]]:
    return ({0: torch.export.Dim("batch")},)


def _write_pt2(network: Deployed, example: Tensor, file: Path) -> None:
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=_dynamic_shapes()), file)


def _read_pt2(file: Path, network: Deployed) -> Predict:
    return torch.export.load(file).module()


def _write_onnx(network: Deployed, example: Tensor, file: Path) -> None:
    torch.onnx.export(
        network,
        (example,),
        file,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=_dynamic_shapes(),
        external_data=False,
        verbose=False,
    )


def _read_onnx(file: Path, network: Deployed) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.contiguous().numpy()})[0])


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        _write_safetensors,
        _read_safetensors,
        takes="It holds tensors alone. The network that `kdbench.load_student(..., normalise=True)` gives loads them.",
    ),
    "onnx": Format(_write_onnx, _read_onnx, needs=("onnx", "onnxscript", "onnxruntime")),
    "pt2": Format(_write_pt2, _read_pt2),
}
