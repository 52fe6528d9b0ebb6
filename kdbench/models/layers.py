"""The layer that all families are made of, and the field's initialisation of it."""

from torch import Tensor, nn


class ConvNorm(nn.Module):
    """A convolution that keeps the size at stride 1, and the batch norm that follows it."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


def init_convolutions(network: nn.Module) -> None:
    """Weights of all convolutions normal with variance 2 / (kernel area x output channels), their biases 0.

    Source: He et al., 2015, arXiv:1502.01852, in the form that keeps the variance of gradients.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_classifier(classifier: nn.Linear) -> None:
    """Weights normal with standard deviation 0.01, biases 0, as Simonyan and Zisserman's networks have it."""
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
