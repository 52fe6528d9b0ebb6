"""9. No mixing: records say what they were made by, and what is not comparable is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MIXED, Lab, write_images

from invariants.probes import only, snapshot
from kdbench import KdbenchError
from kdbench.report.compare import compare
from kdbench.report.tables.results import result_table
from kdbench.runner.frame import load_results
from kdbench.runner.plan import Rerun
from kdbench.suite import code_hash as code_of


def test_a_directory_of_another_protocol_is_refused(finished: Lab) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(only(suite, "kd"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "protocol": 0}))
    other = finished.suite(methods=["sp"])
    before = snapshot(finished)
    for refused in (suite, other):
        with pytest.raises(KdbenchError, match=r"protocol 0.*--results"):
            finished.run(refused)
    assert snapshot(finished) == before


@pytest.mark.parametrize("changes", [MIXED, {"methods": ["sp"], "seeds": [9]}], ids=["the same trials", "other trials"])
def test_other_images_under_the_same_label_are_refused(changes: dict[str, Any], finished: Lab, tmp_path: Path) -> None:
    images = write_images(tmp_path / "others", seed=1)
    suite = Lab(finished.root, images).suite(**changes)
    before = snapshot(finished)
    with pytest.raises(KdbenchError, match=r"stripes.*other images.*`label`"):
        finished.run(suite, rerun=Rerun.ALL)
    assert snapshot(finished) == before
    assert finished.run(Lab(finished.root, images).suite(methods=["scratch"], dataset={"label": "other stripes"}))


def test_a_record_says_what_it_was_made_by(undisturbed: Lab) -> None:
    for trial in undisturbed.suite(**MIXED).trials:
        record = undisturbed.record(trial)
        assert record.core_code == code_of.core_code()
        assert record.method_code == code_of.method_code(trial.methods)
        assert (record.protocol, record.precision) == (trial.protocol, "fp32")
        assert len(record.data_fingerprint) == 16
        assert record.environment.torch == torch.__version__


def test_tables_refuse_to_mix_precisions(lab: Lab) -> None:
    for precision in ("fp32", "bf16"):
        lab.run(lab.suite(recipe={"precision": precision}, teacher={"recipe": {"precision": "fp32"}}))
    results = load_results(lab.store.root)
    pairs = [("wrn_10_1", "resnet8")]
    assert result_table(compare(results[results["precision"] == "fp32"], pairs=pairs)).rows
    with pytest.raises(KdbenchError, match="precisions"):
        result_table(compare(results, pairs=pairs))
