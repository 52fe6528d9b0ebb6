"""Every method computes what its authors' code computes: the loss and all gradients of `golden/`, in float64.

A golden file holds inputs, weights and what the reference made of them. A case in `golden_cases/` feeds the inputs to our method,
and the test then demands that nothing in the file was left uncompared.
"""

import importlib
import pkgutil

import golden_cases
import pytest
from golden_numbers import CASES, GOLDEN, Golden

for _module in pkgutil.iter_modules(golden_cases.__path__):
    importlib.import_module(f"golden_cases.{_module.name}")


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.safetensors")))
def test_a_method_computes_what_its_authors_code_computes(name: str) -> None:
    golden = Golden(name)
    assert golden.uncompared
    CASES[name](golden)
    assert not golden.uncompared
