"""What a step costs, in numbers that no machine changes: operations, waits of the host, forward passes of the teacher."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from operations import Operations
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdbench import Batch
from kdbench.conformance.hook_points import map_tensors
from kdbench.conformance.setting import Setting
from kdbench.conformance.terms import loss_terms
from kdbench.conformance.two_heads import NAME as TWO_HEADS
from kdbench.docs.methods import shipped_methods
from kdbench.method.batch import View
from kdbench.training.single import Single

WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique_dim", "_unique2"}
"""Operations whose result the host must know before it goes on."""

OPERATIONS = {
    **{"scratch": 96, "kd": 119, "kd_standardized": 153, "dkd": 171, "dist": 186, "fitnets": 119, "fitnets_hint": 113, "at": 232},
    **{
        "ft": 156,
        "ft_repdistiller": 171,
        "nst": 250,
        "sp": 137,
        "cc": 125,
        "rkd": 181,
        "pkt": 154,
        "vid": 212,
        "ab": 116,
        "fsp": 96,
    },
    **{"nkd": 146, "ttm": 115, "ctkd": 151, "rld": 176, "wsld": 127, "normkd": 151, "eakd": 139},
    **{"ofd": 173, "crd": 266, "reviewkd": 426, "simkd": 127, "dml": 356},
    **{"skd": 195, "mlkd": 459, "mlkd_noaug": 253, "crld": 286},
    **{"srrl": 136, "itrd": 203, "pefd": 154, "rsd": 163, "ickd": 142, "mgd": 126},
    **{"ofa": 280, "sskd": 365, "byot": 242, "ffl": 534},
    **{"label_smoothing": 109, "tfkd_reg": 119, "pskd": 115},
    **{"deit": 121, "dgkd": 139},  # deit: of a resnet8 with two heads
    **{"catkd": 161, "sdd": 234, "kdpp": 161},
    **{"semckd": 621, "wkd_f": 157, "wkd_l": 317, "afd": 375, "irg": 177, "norm": 131},
}
"""Of one step of resnet8, forward, backward and the optimiser, all of the method's included; raise one only with a reason.

A weight that follows the epoch is one that fills a tensor, so that a CUDA graph can read it (`Batch.by_epoch`).
AT and AFD take norms: a few small operations more, which write less than powers of all activations do. CRD's draws are 13: made on
the device, they spare the host two million draws in a step of 128 images.
"""


class Moves(TorchDispatchMode):
    """Notes what takes or gives tensors of two devices at once."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        devices = {leaf.device for leaf in tree_leaves((args, kwargs, given)) if isinstance(leaf, Tensor)}
        self.found += [str(func)] * (len(devices) > 1)
        return given


class BatchElsewhere(Batch):
    """A batch on the meta device, where draws arrive by a way that is as it should be."""

    def random(self, make: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        made = make(*args, **options)
        return torch.empty(made.shape, dtype=made.dtype, device="meta")


@cache
def second_step(name: str) -> Counter[str]:
    """The operations of a step of the main training; the first one measures the loss balance, too."""
    student = TWO_HEADS if name == "deit" else "resnet8"
    setting = Setting(name, student, "resnet14", image_shape=(3, 16, 16))
    lane = setting.lane(epochs=1)
    inputs = setting.inputs(12, lane.method.views)
    unit = Single(lane)
    while lane.position and lane.position.phase == 0:
        lane.begin_epoch()
        unit.train_step(inputs)
        lane.sum_up(data_s=0.0, teacher_s=0.0, startup_s=0.0)
        lane.end_epoch()
    lane.begin_epoch()
    inputs = inputs if lane.method.reads_teacher else inputs.taught(None)
    unit.train_step(inputs)
    with Operations() as operations:
        unit.train_step(inputs)
    assert lane.failure is None
    return operations.found


@pytest.mark.parametrize("name", shipped_methods())
def test_no_step_waits_for_a_number(name):
    assert not WAITS & second_step(name).keys()


@pytest.mark.parametrize("name", shipped_methods())
def test_nothing_is_made_on_the_host_and_moved_to_the_device(name):
    """The host would wait for each such tensor, and a step that does it cannot be a CUDA graph. The meta device stands for CUDA."""
    setting = Setting(name, TWO_HEADS if name == "deit" else "resnet8", "resnet14")
    method, (student, teacher, batch) = setting.method().to("meta"), setting.example_inputs()

    def there(tensor: Tensor) -> Tensor:
        return tensor.detach().to("meta").requires_grad_(tensor.requires_grad)

    views = {view: View(there(shown.images), there(shown.labels)) for view, shown in batch.views.items()}
    tensors = (there(batch.images), there(batch.labels), there(batch.indices))
    batch = BatchElsewhere(*tensors, batch.epoch, batch.epochs, batch.generator, views=views)
    student, teacher = (map_tensors(outputs, there) for outputs in (student, teacher))
    with Moves() as moves:
        terms = loss_terms(method, student, teacher, batch)
        method.predict(student)
        learnt = [term for term in terms.values() if term.requires_grad]
        torch.autograd.backward(learnt, [torch.ones_like(term) for term in learnt])
    assert not moves.found


@pytest.mark.parametrize("name", shipped_methods())
def test_a_step_takes_no_more_operations_than_it_did(name):
    assert second_step(name).total() <= OPERATIONS[name]


def test_a_frozen_teacher_takes_fewer_operations_than_the_network_it_was():
    setting = Setting("kd", "resnet8", "resnet14", image_shape=(3, 16, 16))
    images = torch.zeros(2, 3, 16, 16)
    with torch.no_grad(), Operations() as before:
        setting.frozen_teacher.network(images)
    with Operations() as after:
        setting.frozen_teacher(images)
    assert before.found.total() - after.found.total() >= setting.frozen_teacher.norms_folded == 15
