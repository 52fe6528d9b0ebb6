"""Loss terms and adapters that several papers share."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, wraps
from itertools import pairwise
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs, Shapes
from kdbench.method.pair import PairError
from kdbench.wording import counted

P = ParamSpec("P")
T = TypeVar("T")


def full_precision(term: Callable[P, T]) -> Callable[P, T]:
    """Decorator for a function of tensors that must be computed in float32 or better, also under autocast.

    Half-precision tensors among its arguments are turned into float32 and autocast is off inside; float64 stays. Without it,
    differences of nearly equal numbers lose their digits, as in distances, Gram matrices and divergences. Decorate the function
    that computes the term from tensors, not `losses`, which is given `Outputs`:

    ```py
    @full_precision
    def distance(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean()
    ```

    Raises:
        TypeError: the function is called without a tensor, or with `Outputs` or a `Batch`.
    """

    @wraps(term)
    def full(*args: P.args, **kwargs: P.kwargs) -> T:
        values = (*args, *kwargs.values())
        device = next((value.device for value in values if isinstance(value, Tensor)), None)
        whole = dict.fromkeys(type(value).__name__ for value in values if isinstance(value, Outputs | Batch))
        if device is None or whole:
            raise TypeError(
                f"full_precision decorates functions of tensors, and {term.__qualname__} is given "
                f"{' and '.join(whole) or 'no tensor'}. Decorate the function "
                "that computes the term: `@full_precision` over `def distance(student: Tensor, teacher: Tensor)`, and call it in "
                "`losses` with tensors such as `student.logits`."
            )
        # Autocast knows no meta device, on which a network's work is counted.
        with nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False):
            return term(*map(_raised, args), **{name: _raised(value) for name, value in kwargs.items()})  # type: ignore[arg-type]

    return full


def _raised(value: object) -> object:
    """Half-precision tensors in float32, all else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


@full_precision
def kd_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor) -> Tensor:
    """The loss of KD: `T^2 KL(softmax(z_t / T) || softmax(z_s / T))`, mean over the batch.

    Args:
        student_logits: z_s, (B, K).
        teacher_logits: z_t, (B, K).
        temperature: T, a number above 0, or a tensor of shape () where it learns.

    Source: Hinton, Vinyals and Dean, 2015, arXiv:1503.02531, with the factor T^2 of section 2.
    """
    log_student = F.log_softmax(student_logits / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


@full_precision
def sample_divergences(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """`KL(softmax(z_t) || softmax(z_s))` of each sample, (B,), from logits z_s and z_t (B, K), which are already divided by T."""
    log_student, log_teacher = F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)


@full_precision
def standardized_logits(logits: Tensor) -> Tensor:
    """Logits (B, K), each row of mean 0 and unbiased standard deviation 1; a row of equal logits is 0 and passes no gradient.

    Source: Sun et al., CVPR 2024, arXiv:2403.01427, with the 1e-7 of the authors' code.
    """
    std = logits.std(1, keepdim=True)
    return (logits - logits.mean(1, keepdim=True)) / (1e-7 + std) * (std > 1e-6)


@full_precision
def masked_log_softmax(logits: Tensor, kept: Tensor) -> Tensor:
    """The logarithm of the softmax over some of the classes alone.

    Args:
        logits: (B, K).
        kept: (B, K), true where a class is in the softmax.

    Returns:
        (B, K), 0 where a class is not in the softmax; a row that keeps no class is 0 everywhere.
    """
    lowest = torch.finfo(logits.dtype).min
    return F.log_softmax(logits.masked_fill(~kept, lowest), dim=1).masked_fill(~kept, 0)


@full_precision
def decoupled(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits (B, 2) of target against rest and (B, K) of the rest alone, whose softmax at `temperature` are DKD's b and q.

    Args:
        logits: (B, K), K at least 2.
        labels: (B,).
        temperature: T, a number above 0.

    Source: Zhao et al., CVPR 2022, arXiv:2203.08679; in log space, so that logarithms of b stay finite.
    """
    target = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    rest = logits - 1000 * temperature * target
    binary = (logits * target).sum(1), temperature * torch.logsumexp(rest / temperature, dim=1)
    return torch.stack(binary, dim=1), rest


def _averaging(size: int, out: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(out, size) matrix whose row i averages the window that adaptive average pooling gives cell i."""
    weights = torch.zeros(out, size, dtype=dtype, device=device)
    for i in range(out):
        start, end = i * size // out, -((i + 1) * size // -out)
        weights[i, start:end] = 1 / (end - start)
    return weights


@cache
def _kept_averaging(size: int, out: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same, made once: on a GPU each row takes a kernel of its own."""
    with torch.inference_mode(False):  # else it could not be used in training later
        return _averaging(size, out, dtype, device)


def pool_to(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Adaptive average pooling of (B, C, H, W) to (B, C, h, w); one number is both.

    It is two matrix products, because the backward pass of torch's own pooling is not deterministic on CUDA.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if maps.shape[-2:] == (height, width):
        return maps
    averaging = _averaging if torch.compiler.is_compiling() else _kept_averaging  # the compiler looks past a cache
    rows, columns = (averaging(n, out, maps.dtype, maps.device) for n, out in zip(maps.shape[-2:], (height, width), strict=True))
    return rows @ maps @ columns.T


def pool_to_smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches of maps (B, C, H, W), both average-pooled to the smaller height and the smaller width."""
    size = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    return pool_to(a, size), pool_to(b, size)


def deepest_pairs(student: tuple[T, ...], teacher: tuple[T, ...]) -> list[tuple[T, T]]:
    """Pair the groups of two networks, beginning with the last of each. Shallow groups of the deeper network stay unpaired.

    It takes the maps of the groups, or their shapes.
    """
    n = min(len(student), len(teacher))
    return list(zip(student[len(student) - n :], teacher[len(teacher) - n :], strict=True))


def middle(groups: tuple[T, ...]) -> T:
    """The middle group of a network, where hints are taken; of two, the deeper. It takes maps or their shapes."""
    return groups[len(groups) // 2]


def pairing_notes(student: tuple[tuple[int, ...], ...], teacher: tuple[tuple[int, ...], ...]) -> list[str]:
    """For `Method.notes`: what `deepest_pairs` does to maps of these shapes (C, H, W). Empty if the numbers of groups agree."""
    if len(student) == len(teacher):
        return []
    n = min(len(student), len(teacher))
    paired = "the last is" if n == 1 else f"the last {n} are"
    return [f"{counted(len(student), 'group')} against the teacher's {len(teacher)}: {paired} paired"]


def pooling_notes(student: tuple[tuple[int, ...], ...], teacher: tuple[tuple[int, ...], ...]) -> list[str]:
    """For `Method.notes`: what `pool_to_smaller` does to pairs of these shapes (C, H, W). Empty if all sizes agree."""
    unequal = [f"{s[1]}x{s[2]} and {t[1]}x{t[2]}" for s, t in deepest_pairs(student, teacher) if s[1:] != t[1:]]
    return (
        [f"maps of unequal size are average-pooled to the smaller (student and teacher: {', '.join(unequal)})"] if unequal else []
    )


def spatial_notes(student: tuple[tuple[int, ...], ...], teacher: tuple[tuple[int, ...], ...]) -> list[str]:
    """For `Method.notes` of losses that normalise each map over its positions: how many pairs of maps (C, H, W) teach nothing.

    A map with a single position is always 1 after that.

    Raises:
        PairError: no pair teaches anything.
    """
    pairs = deepest_pairs(student, teacher)
    single = [min(s[1], t[1]) * min(s[2], t[2]) == 1 for s, t in pairs]
    if all(single):
        raise PairError(
            "it compares how activations are spread over a map, and the maps to be compared are of 1x1; choose larger images, or "
            "networks that keep more places"
        )
    return [f"{sum(single)} of {len(pairs)} pairs of groups teach nothing, since they meet in maps of 1x1"] if any(single) else []


def refuse_unclassified_maps(**networks: Shapes) -> None:
    """Refuse networks whose classifier pools no maps, so that `Outputs.classify` has no meaning for a place.

    Args:
        networks: by what they are, such as `student=pair.student`.

    Raises:
        PairError: one of them has no `pooled_maps`.
    """
    for whose, shapes in networks.items():
        if "pooled_maps" in shapes.lacking():
            raise PairError(
                f"it classifies places of the maps that the {whose}'s classifier pools, and the {whose} is not known to pool any "
                f"(`pooled_maps`); choose a {whose} whose classifier reads the mean of maps, as in a ResNet. `kdbench show model` "
                "says why it has none"
            )


def refuse_memory(numbers: float, holding: str, *, limit_gib: float) -> None:
    """Refuse a pair whose loss would need more memory than a limit, such as a method's `memory_limit_gib`.

    Args:
        numbers: how many float32 numbers a step holds at once, in the largest batch.
        holding: what they are, for the message.
        limit_gib: the limit in GiB.

    Raises:
        PairError: it would need more. The message says how much.
    """
    gib = 4 * numbers / 2**30
    if gib > limit_gib:
        raise PairError(
            f"it needs about {gib:.3g} GiB for {holding}, above memory_limit_gib = {limit_gib:g}; lower `batch_size` in the "
            "recipe, or raise that limit if the device has more"
        )


def batch_norm_needs(*maps: tuple[int, ...]) -> int:
    """For `Method.min_batch_size`: how many images batch norms need at maps of these shapes (C, H, W).

    It is 2 if a map is 1x1, and 1 otherwise: a batch norm needs two values in each channel.
    """
    return 2 if any(height * width == 1 for _, height, width in maps) else 1


def factor_convolutions(*widths: int, transposed: bool = False, norm: bool = False) -> nn.Sequential:
    """A translator, or half a paraphraser: 3x3 convolutions, each with LeakyReLU(0.1).

    Args:
        widths: the numbers of channels, from the first input to the last output.
        transposed: whether the convolutions are transposed, as in the half that decodes.
        norm: whether a batch norm follows each convolution. FT's authors have none.
    """
    conv = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [conv(c_in, c_out, 3, padding=1), *([nn.BatchNorm2d(c_out)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def hint_regressor(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Sequential:
    """Convolution, batch norm and ReLU from a student's map (C, H, W) to the shape of the teacher's.

    The convolution has kernel 1 if the sizes agree, and stride 2, or is transposed, if one is twice the other. If the student's map
    is larger otherwise, the kernel is unpadded. This is RepDistiller's rule, which follows Romero et al.

    Raises:
        PairError: the student's map is smaller, and not half as large.
    """
    (c_s, h_s, w_s), (c_t, h_t, w_t) = student, teacher
    conv: nn.Module
    if (h_s, w_s) == (h_t, w_t):
        conv = nn.Conv2d(c_s, c_t, 1)
    elif (h_s, w_s) == (2 * h_t, 2 * w_t):
        conv = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
    elif (2 * h_s, 2 * w_s) == (h_t, w_t):
        conv = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
    elif h_s >= h_t and w_s >= w_t:
        conv = nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t))
    else:
        raise PairError(
            f"no regressor from a {h_s}x{w_s} map of the student to a {h_t}x{w_t} map of the teacher; choose a student whose map "
            "is as large, larger or half as large"
        )
    return nn.Sequential(conv, nn.BatchNorm2d(c_t), nn.ReLU())
