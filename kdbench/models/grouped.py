"""Networks of blocks in groups: any block may end a group."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.errors import KdbenchError, nearest
from kdbench.method.outputs import Outputs
from kdbench.models.network import Network, modules_command


class Grouped(Network):
    """A network whose groups are lists of blocks. A group ends with its last block, unless `end_groups` names others.

    Attributes:
        groups: the blocks of each group, shallow to deep.
    """

    groups: nn.ModuleList
    _ends: tuple[str, ...] = ()

    @property
    def blocks(self) -> dict[str, nn.Module]:
        """All blocks by their names, such as `groups.0.2`, shallow to deep."""
        groups: Any = self.groups  # lists of modules
        return {f"groups.{i}.{j}": block for i, group in enumerate(groups) for j, block in enumerate(group)}

    @property
    def ends(self) -> tuple[str, ...]:
        """The names of the blocks with which groups end."""
        groups: Any = self.groups
        return self._ends or tuple(f"groups.{i}.{len(group) - 1}" for i, group in enumerate(groups))

    def walk(self) -> Iterator[tuple[nn.Module, bool]]:
        """Each block, shallow to deep, and whether a group ends with it."""
        ends = frozenset(self.ends)
        return ((block, name in ends) for name, block in self.blocks.items())

    def end_groups(self, name: str, hooks: Sequence[str]) -> None:
        known = list(self.blocks)
        see = f"{modules_command(name)} lists them."
        if unknown := [hook for hook in hooks if hook not in known]:
            raise KdbenchError(f"{name}, hooks: there is no block '{unknown[0]}'.{nearest(unknown[0], known)} {see}")
        if (order := [known.index(hook) for hook in hooks]) != sorted(set(order)):
            raise KdbenchError(f"{name}, hooks: {', '.join(hooks)} do not follow each other. Name each once, from shallow to deep.")
        self._ends = tuple(hooks)

    @abstractmethod
    def norm_of(self, block: nn.Module) -> nn.BatchNorm2d | None:
        """The last batch norm before the pre-activation of a group that ends with the block, if it covers all channels."""

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        norms = [self.norm_of(block) for block, ends in self.walk() if ends]
        return tuple(norm for norm in norms if norm) if all(norms) else ()


class PostActivation(Grouped):
    """A network in which a ReLU follows the stem and every block; neither has that ReLU inside.

    Args:
        stem: (B, C, H, W) images to maps.
        groups: the blocks of each group, maps to maps.
        norm_of: gives the last batch norm of a block, where that covers all channels. None where it never does.
        head: between the last group and global average pooling.
        classifier: the last layer.
    """

    classifier: nn.Linear

    def __init__(
        self,
        *,
        stem: nn.Module,
        groups: Iterable[Iterable[nn.Module]],
        norm_of: Callable[[Any], nn.BatchNorm2d | None] | None,
        classifier: nn.Linear,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.groups = nn.ModuleList(nn.ModuleList(group) for group in groups)
        self.head = head or nn.Identity()
        self.classifier = classifier
        self._norm_of = norm_of

    def forward(self, images: Tensor) -> Outputs:
        stem = x = F.relu(self.stem(images))
        features, preactivations = [], []
        for block, ends in self.walk():
            preactivation = block(x)
            x = F.relu(preactivation)
            if ends:
                features.append(x)
                preactivations.append(preactivation)
        last = self.head(x)
        pooled = last.mean((2, 3))  # not adaptive pooling: its backward pass is not deterministic on CUDA
        raw = tuple(preactivations)  # no norm follows a group
        return Outputs(self.classifier(pooled), stem, tuple(features), raw, pooled, raw, pooled_maps=last)

    def norm_of(self, block: nn.Module) -> nn.BatchNorm2d | None:
        return self._norm_of(block) if self._norm_of else None
