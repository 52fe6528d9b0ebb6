"""kdbench compares knowledge-transfer methods, teacher to student, on PyTorch.

The names below are the public interface; each is imported when it is first used, so that `import kdbench` alone is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kdbench.data import Dataset as Dataset
    from kdbench.data import Source as Source
    from kdbench.data import SourceParams as SourceParams
    from kdbench.data import Split as Split
    from kdbench.data import register_dataset as register_dataset
    from kdbench.data.views import rotations as rotations
    from kdbench.errors import KdbenchError as KdbenchError
    from kdbench.library import build_method as build_method
    from kdbench.library import build_model as build_model
    from kdbench.library import load_student as load_student
    from kdbench.library import run_suite as run_suite
    from kdbench.method.batch import Batch as Batch
    from kdbench.method.batch import View as View
    from kdbench.method.composition import Composition as Composition
    from kdbench.method.interface import Method as Method
    from kdbench.method.interface import UnitInterval as UnitInterval
    from kdbench.method.interface import register as register
    from kdbench.method.losses import batch_norm_needs as batch_norm_needs
    from kdbench.method.losses import decoupled as decoupled
    from kdbench.method.losses import deepest_pairs as deepest_pairs
    from kdbench.method.losses import factor_convolutions as factor_convolutions
    from kdbench.method.losses import full_precision as full_precision
    from kdbench.method.losses import hint_regressor as hint_regressor
    from kdbench.method.losses import kd_divergence as kd_divergence
    from kdbench.method.losses import masked_log_softmax as masked_log_softmax
    from kdbench.method.losses import middle as middle
    from kdbench.method.losses import pairing_notes as pairing_notes
    from kdbench.method.losses import pool_to as pool_to
    from kdbench.method.losses import pool_to_smaller as pool_to_smaller
    from kdbench.method.losses import pooling_notes as pooling_notes
    from kdbench.method.losses import refuse_memory as refuse_memory
    from kdbench.method.losses import refuse_unclassified_maps as refuse_unclassified_maps
    from kdbench.method.losses import sample_divergences as sample_divergences
    from kdbench.method.losses import spatial_notes as spatial_notes
    from kdbench.method.losses import standardized_logits as standardized_logits
    from kdbench.method.outputs import Outputs as Outputs
    from kdbench.method.outputs import Shapes as Shapes
    from kdbench.method.pair import Pair as Pair
    from kdbench.method.pair import PairError as PairError
    from kdbench.method.pair import TeacherParts as TeacherParts
    from kdbench.method.stages import Losses as Losses
    from kdbench.method.stages import ParameterGroup as ParameterGroup
    from kdbench.method.stages import Stage as Stage
    from kdbench.method.stages import Survey as Survey
    from kdbench.models import Network as Network
    from kdbench.models import register_model as register_model
    from kdbench.results.outcomes import Outcomes as Outcomes
    from kdbench.results.outcomes import load_outcomes as load_outcomes
    from kdbench.runner.frame import load_results as load_results
    from kdbench.spec.optimiser import SGD as SGD
    from kdbench.spec.optimiser import AdamW as AdamW
    from kdbench.spec.trial import MethodParams as MethodParams
    from kdbench.training.inputs import outputs_of as outputs_of
    from kdbench.training.own_loop import train_stages as train_stages

_HOMES = {
    "Dataset": "data",
    "Source": "data",
    "SourceParams": "data",
    "Split": "data",
    "register_dataset": "data",
    "rotations": "data.views",
    "KdbenchError": "errors",
    "build_method": "library",
    "build_model": "library",
    "load_student": "library",
    "run_suite": "library",
    "batch_norm_needs": "method.losses",
    "decoupled": "method.losses",
    "deepest_pairs": "method.losses",
    "factor_convolutions": "method.losses",
    "full_precision": "method.losses",
    "hint_regressor": "method.losses",
    "kd_divergence": "method.losses",
    "masked_log_softmax": "method.losses",
    "middle": "method.losses",
    "pairing_notes": "method.losses",
    "pool_to": "method.losses",
    "pool_to_smaller": "method.losses",
    "pooling_notes": "method.losses",
    "refuse_memory": "method.losses",
    "sample_divergences": "method.losses",
    "refuse_unclassified_maps": "method.losses",
    "spatial_notes": "method.losses",
    "standardized_logits": "method.losses",
    "Batch": "method.batch",
    "Composition": "method.composition",
    "Losses": "method.stages",
    "Method": "method.interface",
    "MethodParams": "spec.trial",
    "Pair": "method.pair",
    "PairError": "method.pair",
    "ParameterGroup": "method.stages",
    "Stage": "method.stages",
    "Survey": "method.stages",
    "TeacherParts": "method.pair",
    "UnitInterval": "method.interface",
    "View": "method.batch",
    "register": "method.interface",
    "Network": "models",
    "register_model": "models",
    "Outputs": "method.outputs",
    "Shapes": "method.outputs",
    "outputs_of": "training.inputs",
    "train_stages": "training.own_loop",
    "SGD": "spec.optimiser",
    "AdamW": "spec.optimiser",
    "Outcomes": "results.outcomes",
    "load_outcomes": "results.outcomes",
    "load_results": "runner.frame",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "report":
        return import_module("kdbench.report")
    if name not in _HOMES:
        raise AttributeError(f"module 'kdbench' has no attribute '{name}'")
    return getattr(import_module(f"kdbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
