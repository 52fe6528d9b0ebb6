"""Every default of every method and the weights of the CRD benchmark, written out once more, each with where it comes from.

A golden file fixes what a loss computes and says nothing of how much it weighs; these tables do. RepDistiller's values are those
of its scripts/run_cifar_distill.sh and train_student.py.
"""

import pytest

from kdbench.docs.methods import shipped_methods, stages
from kdbench.method.description import describe_method
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite

load_shipped()

DEFAULTS: dict[str, dict[str, object]] = {
    # beta and margin: RepDistiller (3 / 1000, distiller_zoo/AB.py); 30 epochs: its init_epochs; stage 2: the authors', KD with T 3
    "ab": {"stage_epochs": 30, "beta": 0.003, "margin": 1, "ce_weight": 0, "kd_weight": 1, "temperature": 3},
    # the authors
    "afd": {"beta": 200, "dimensions": 128},
    # the authors and RepDistiller
    "at": {"beta": 1000, "p": 2},
    # luanyunteng/pytorch-be-your-own-teacher, train.py
    "byot": {"alpha": 0.1, "beta": 1e-6, "temperature": 3},
    # the authors, mdistiller/engine/cfg.py; weight and normalisation are chosen per pair
    "catkd": {"beta": 400, "resolution": 2, "normalise": True},
    # RepDistiller
    "cc": {"beta": 0.02, "dimensions": 128},
    # the authors, who are RepDistiller's; the limit of memory is ours
    "crd": {"beta": 0.8, "dimensions": 128, "negatives": 16384, "temperature": 0.07, "momentum": 0.5, "memory_limit_gib": 16},
    # the authors
    "crld": {
        "within_weight": 2,
        "cross_weight": 0.5,
        "ce_weight": 1,
        "temperature": 4,
        "weak_confidence": 0.9,
        "strong_confidence": 0.2,
    },
    # the authors' script
    "ctkd": {"ce_weight": 0.1, "kd_weight": 0.9, "lowest": 1, "span": 20, "reversal_epochs": 10, "standardized": False},
    # DeiT on ImageNet: hard labels of the teacher (facebookresearch/deit, main.py)
    "deit": {"kind": "hard", "temperature": 1, "alpha": 0.5},
    # the authors, train.py
    "dgkd": {"temperature": 5, "alpha": 1, "dropped": 1},
    # the authors, on CIFAR
    "dist": {"beta": 2, "gamma": 2, "tau": 4},
    # the authors, mdistiller/engine/cfg.py; beta is chosen per pair, below
    "dkd": {"alpha": 1, "beta": 8, "temperature": 4, "warm_up_epochs": 20, "standardized": False},
    # the paper, where both networks weigh the divergence by 1; the peer is ours
    "dml": {"peer": "resnet20", "beta": 1},
    # the authors, on CIFAR-100
    "eakd": {"temperature": 4, "entropy_temperature": 3, "entropy_bound": 100, "ce_weight": 0.1, "kd_weight": 0.9},
    # the authors, train_FFL.py, which weighs the divergences by 1; the peer is as deep as their networks
    "ffl": {"peer": "resnet32", "beta": 1, "temperature": 3, "ramp_up_epochs": 80},
    # stage 1: as long as RepDistiller's first stages; stage 2: kd's, below
    "fitnets": {"hint_epochs": 30, "temperature": 4, "alpha": 0.9},
    # RepDistiller and mdistiller
    "fitnets_hint": {"beta": 100},
    # 30 epochs: RepDistiller's init_epochs; its weight, 50, is read and never used, so 1; the limit of memory is ours
    "fsp": {"stage_epochs": 30, "beta": 1, "memory_limit_gib": 16},
    # the authors: L1, 6 epochs at 0.1, no batch norm
    "ft": {
        "k": 0.5,
        "beta": 500,
        "paraphraser_epochs": 6,
        "paraphraser_lr": 0.1,
        "reconstruction": "l1",
        "batch_norm": "none",
    },
    # RepDistiller; its rate for ResNets and WRNs, helper/pretrain.py
    "ft_repdistiller": {"k": 0.5, "beta": 200, "paraphraser_epochs": 30, "paraphraser_lr": 0.01},
    # SemCKD, on CIFAR
    "irg": {"beta": 0.005},
    # the authors' README; their arguments' defaults are others
    "itrd": {"correlation_weight": 2, "mutual_weight": 1, "alpha": 1.01},
    # the authors, scripts/train_student.sh; the limit of memory is ours
    "ickd": {"beta": 2.5, "memory_limit_gib": 16},
    # RepDistiller: cross-entropy 0.1, divergence 0.9
    "kd": {"temperature": 4, "alpha": 0.9},
    # the authors
    "kd_standardized": {"temperature": 2, "ce_weight": 0.1, "kd_weight": 9},
    # the authors
    "mlkd": {"temperature": 4, "ce_weight": 0.1, "kd_weight": 0.9, "standardized": False},
    # the weights of mlkd
    "mlkd_noaug": {"temperature": 4, "ce_weight": 0.1, "kd_weight": 0.9, "standardized": False},
    # the authors, on CIFAR-100
    "nkd": {"gamma": 3.5, "temperature": 3},
    # the authors, on CIFAR
    "mgd": {"beta": 1.2e-3, "masked": 0.15},
    # the authors' README; their logits' scale is a default of their script
    "norm": {"ce_weight": 0.1, "beta": 1, "copies": 8, "scale": 2.5},
    # the authors
    "normkd": {"temperature": 2, "ce_weight": 0.1, "kd_weight": 0.9},
    # the usual one, of the paper
    "label_smoothing": {"alpha": 0.1},
    # RepDistiller; the limit of memory is ours
    "nst": {"beta": 50, "memory_limit_gib": 16},
    # the authors, train.py
    "ofa": {"kd_weight": 1, "ofa_weight": 1, "eps": 1, "temperature": 1},
    # the authors, on CIFAR
    "ofd": {"beta": 0.001},
    # the authors' scripts
    "pefd": {"beta": 25, "projectors": 3},
    # the authors; the limit of memory is ours
    "pskd": {"alpha": 0.8, "memory_limit_gib": 16},
    # RepDistiller
    "pkt": {"beta": 30000},
    # the authors, CIFAR/train_cifar.sh: the weights of ResNet-56 to ResNet-20; they are chosen per pair
    "kdpp": {"nd_weight": 2, "kd_weight": 1, "temperature": 4, "warm_up_epochs": 20},
    # the authors: the weight of ResNet-32x4 to ResNet-8x4; it is chosen per pair, below
    "reviewkd": {"beta": 5, "warm_up_epochs": 20},
    # the authors and RepDistiller, which weighs their sum by 1; the limit of memory is ours
    "rkd": {"distance_weight": 25, "angle_weight": 50, "memory_limit_gib": 16},
    # the authors
    "rsd": {"beta": 0.1, "kappa": 0.01, "expansion": 2},
    # the authors, on CIFAR-100, but for `--same-t`
    "rld": {"alpha": 1, "beta": 8, "tau": 1, "temperature": 4, "warm_up_epochs": 20},
    # the authors
    "skd": {"temperature": 4, "ridge": 0.1, "ce_weight": 0.1, "kd_weight": 0.9},
    "scratch": {},
    # the authors: DKD's of mdistiller/engine/cfg.py, and three levels; levels and beta are chosen per pair
    "sdd": {
        "loss": "dkd",
        "levels": 3,
        "alpha": 1,
        "beta": 8,
        "temperature": 4,
        "ce_weight": 1,
        "warm_up_epochs": 20,
    },
    # the authors, on CIFAR
    "semckd": {"beta": 400},
    # the authors
    "simkd": {"beta": 1, "factor": 2},
    # RepDistiller
    "sp": {"beta": 3000},
    # the authors, student.py
    "sskd": {
        "ce_weight": 0.1,
        "kd_weight": 0.9,
        "rotation_weight": 2.7,
        "ssp_weight": 10,
        "temperature": 4,
        "ssp_temperature": 0.5,
        "ssp_kept": 0.75,
        "ssp_epochs": 60,
        "ssp_lr": 0.05,
    },
    # the authors' example, VGG-13 to VGG-8
    "ttm": {"beta": 45, "gamma": 0.1, "weighted": False},
    # the authors, on ImageNet
    "srrl": {"form": "maps", "feature_weight": 1, "logits_weight": 1},
    # the authors, experiments/base_experiments/base_resnet18
    "tfkd_reg": {"alpha": 0.1, "temperature": 20, "multiplier": 100},
    # the authors, ResNet-32x4 to ResNet-8x4 on CIFAR
    "wkd_f": {"beta": 0.08, "rho": 4, "grid": 1, "decay_after": 150},
    # the authors, on CIFAR, with another cost
    "wkd_l": {
        "gamma": 600,
        "temperature": 8,
        "sharpness": 1,
        "regularisation": 0.05,
        "iterations": 10,
        "decay_after": 150,
    },
    # RepDistiller
    "vid": {"beta": 1, "initial_variance": 5},
    # cls_KD, on CIFAR-100
    "wsld": {"alpha": 2.25, "temperature": 4},
}

STAGES = {
    "ab": ["boundaries, 30 epochs, of the student"],
    "fitnets": ["hint, 30 epochs, of the student"],
    "fsp": ["flow, 30 epochs, of the student"],
    "ft": ["paraphraser, 6 epochs, from the teacher alone, learning rate 0.1"],
    "ft_repdistiller": ["paraphraser, 30 epochs, from the teacher alone, learning rate 0.01"],
    "sskd": ["ssp, 60 epochs, from the teacher alone, learning rate 0.05, a tenth of it from epoch 30, 45"],
}
"""A stage without a rate of its own has the recipe's first one, as AB's and FSP's have in RepDistiller."""


def test_every_method_has_its_defaults_written_out() -> None:
    assert sorted(DEFAULTS) == shipped_methods(), "a method that is added gets an entry in DEFAULTS, with its source"


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_the_usual_ones(name: str) -> None:
    assert describe_method(name)["params"] == DEFAULTS[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_stages_have_the_usual_length_and_rate(name: str) -> None:
    assert list(stages(name)) == STAGES.get(name, [])


# Of each pair: DKD's beta, ReviewKD's beta, the rate of RepDistiller's paraphraser, the rate of the student.
# DKD: megvii-research/mdistiller, configs/cifar100/dkd, and 8, of mdistiller/engine/cfg.py, where a pair's file gives none.
# ReviewKD: dvlab-research/ReviewKD, CIFAR-100/script/reviewKD.sh. None: the authors give no weight, and the pair goes without.
# Paraphraser: helper/pretrain.py of RepDistiller, 0.01 for students that are ResNets or WRNs, else the student's rate.
# Student: train_student.py of RepDistiller, 0.05, and 0.01 for MobileNetV2 and ShuffleNets.
PAIRS = {
    ("crd-same", "wrn_40_2", "wrn_16_2"): (6, 5, 0.01, 0.05),
    ("crd-same", "wrn_40_2", "wrn_40_1"): (6, 5, 0.01, 0.05),
    ("crd-same", "resnet56", "resnet20"): (2, 0.6, 0.01, 0.05),
    ("crd-same", "resnet110", "resnet20"): (None, None, 0.01, 0.05),
    ("crd-same", "resnet110", "resnet32"): (2, 1, 0.01, 0.05),
    ("crd-same", "resnet32x4", "resnet8x4"): (8, 5, 0.01, 0.05),
    ("crd-same", "vgg13", "vgg8"): (6, None, 0.05, 0.05),
    ("crd-cross", "vgg13", "mobilenetv2_half"): (6, None, 0.01, 0.01),
    ("crd-cross", "resnet50_cifar", "mobilenetv2_half"): (8, None, 0.01, 0.01),
    ("crd-cross", "resnet50_cifar", "vgg8"): (None, None, 0.05, 0.05),
    ("crd-cross", "resnet32x4", "shufflenetv1"): (8, 5, 0.01, 0.01),
    ("crd-cross", "resnet32x4", "shufflenetv2"): (8, 8, 0.01, 0.01),
    ("crd-cross", "wrn_40_2", "shufflenetv1"): (8, 5, 0.01, 0.01),
}


@pytest.mark.parametrize("suite", ["crd-same", "crd-cross"])
def test_every_pair_of_the_crd_benchmark_has_its_authors_weights_and_rates(suite: str) -> None:
    found = {}
    loaded = load_suite(suite)
    for teacher, student in (tuple(label.removesuffix(" (raw)") for label in pair) for pair in loaded.pairs):
        trials = [t for t in loaded.trials if t.student == student and t.teacher and t.teacher.student == teacher]
        params = {t.method: t.methods[0].params for t in trials}
        (rate,) = {t.recipe.optimiser.lr for t in trials}
        weights = (params[method]["beta"] if method in params else None for method in ("dkd", "reviewkd"))
        found[suite, teacher, student] = (*weights, params["ft_repdistiller"]["paraphraser_lr"], rate)
    assert found == {pair: values for pair, values in PAIRS.items() if pair[0] == suite}


@pytest.mark.parametrize("suite", ["crd-same", "crd-cross"])
def test_what_the_crd_benchmark_does_not_choose_per_pair_is_the_default(suite: str) -> None:
    """But for AB, which goes on with plain cross-entropy in RepDistiller (helper/loops.py)."""
    chosen = {("dkd", "beta"), ("reviewkd", "beta"), ("ft_repdistiller", "paraphraser_lr")}
    expected = {**DEFAULTS, "ab": {**DEFAULTS["ab"], "ce_weight": 1, "kd_weight": 0}}
    for trial in load_suite(suite).trials:
        for name, value in trial.methods[0].params.items():
            assert (trial.method, name) in chosen or value == expected[trial.method][name], (trial.student, trial.method, name)


def test_no_epoch_of_the_imagenet_tables_lacks_the_loss_of_its_method() -> None:
    """mdistiller counts epochs from 1, so that its warm-up of one epoch is none; so does our DKD, but not our ReviewKD."""
    warm_ups = {trial.method: trial.methods[0].params.get("warm_up_epochs") for trial in load_suite("imagenet").trials}
    assert {name: epochs for name, epochs in warm_ups.items() if epochs is not None} == {"dkd": 1, "reviewkd": 0}
