"""SSKD: which rows are kept, and how its stage learns."""

import sys
from dataclasses import replace

import pytest
import torch
from test_method_traps import batch, build, outputs, pair

from kdbench import SGD, Composition, PairError
from kdbench.method.specs import build_part, resolve_methods
from kdbench.training.segments import teacher_stages

SSKD = build("sskd", outputs(4), outputs(4, seed=1))
CODE = sys.modules[type(SSKD).__module__]


def test_the_best_ranks_are_kept_and_of_equal_ones_the_more_similar():
    own = torch.tensor([0, 0, 0, 1, 1, 1])
    similarities = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.1, 0.9], [0.5, 0.4], [0.8, 0.7], [0.1, 0.2]])
    for share, expected in ((1.0, "111111"), (0.75, "110111"), (0.5, "100111"), (0.3, "100011"), (0.0, "100001")):
        assert CODE.kept(similarities, own, share).int().tolist() == [int(digit) for digit in expected], share


def test_the_rate_of_its_stage_falls_at_half_and_at_three_quarters():
    (stage,) = teacher_stages(Composition({"sskd": SSKD}), SGD(lr=1))
    rates = {0: 0.05, 29: 0.05, 30: 0.005, 44: 0.005, 45: 0.0005, 59: 0.0005}
    assert {epoch: pytest.approx(stage.rate(epoch)) for epoch in rates} == rates
    (short,) = build("sskd", outputs(4), outputs(4), ssp_epochs=1).stages()
    assert short.milestones == ()


def test_images_that_are_not_square_are_refused():

    (spec,) = resolve_methods("sskd", {})
    tall = replace(pair(outputs(4), outputs(4)), image_shape=(3, 9, 7))
    with pytest.raises(
        PairError, match="sskd: it turns images by 90 degrees, and those of this data set have 9x7 pixels; choose square"
    ):
        build_part(spec, tall)


def test_the_stage_reads_the_teacher_alone():
    teacher = outputs(4, seed=1)
    (stage,) = SSKD.stages()
    first, second = (stage.losses(student, teacher, batch(4))["ssp"] for student in (teacher, outputs(4)))
    assert torch.equal(first, second)
