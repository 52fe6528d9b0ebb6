"""What holds of every method of the registry when it trains beside all the others."""

from invariants.everything import Everything
from invariants.probes import STEPS, only


def test_every_method_trains(each_method: str, everything: Everything) -> None:
    record = everything.lab.record(only(everything.suite, each_method))
    assert record.reason is None
    assert len([step for step in everything.of(each_method) if step.segment == "main"]) == 2 * STEPS


def test_the_optimiser_has_all_that_a_method_trains_and_nothing_else(each_method: str, everything: Everything) -> None:
    for step in everything.of(each_method):
        assert step.optimised == step.trainable, step.segment


def test_what_a_stage_has_trained_is_frozen_in_the_main_training(each_method: str, everything: Everything) -> None:
    assert len({step.staged for step in everything.of(each_method) if step.segment == "main"}) == 1


def test_the_student_is_in_training_mode_in_every_step_though_it_is_evaluated_between(
    each_method: str, everything: Everything
) -> None:
    assert all(step.student_in_training for step in everything.of(each_method))


def test_batch_norm_runs_once_in_a_step_and_once_for_each_view(each_method: str, everything: Everything) -> None:
    for step in everything.of(each_method):
        assert step.student_norms == {1 + len(step.lane.method.views)}, step.segment
        assert step.method_norms <= {0, 1}, step.segment
