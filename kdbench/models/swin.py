"""The two small Swin transformers of OFA-KD's benchmark, as timm builds them; of plain modules, hooks name the groups.

Hao et al., "One-for-all: bridge the gap between heterogeneous architectures in knowledge distillation", NeurIPS 2023,
arXiv:2310.19444; Hao840/OFAKD, custom_model/swin_transformer.py. They are for images of 224x224 and drop no paths.
"""

import re

from torch import nn

from kdbench.models.foreign import timm
from kdbench.models.network import MODELS, Factory

_WIDTHS = {"pico": 48, "nano": 64}


def _swin(match: re.Match[str]) -> Factory:
    swin, width = timm().models.SwinTransformer, _WIDTHS[match[1]]

    def factory(*, num_classes: int, in_channels: int) -> nn.Module:
        network: nn.Module = swin(
            num_classes=num_classes,
            in_chans=in_channels,
            patch_size=4,
            window_size=7,
            embed_dim=width,
            depths=(2, 2, 2, 2),
            num_heads=(2, 4, 8, 16),
            drop_path_rate=0.0,
        )
        return network

    return factory


MODELS.register_family(r"swin_(pico|nano)", _swin)
