"""How many methods pages speak of is how many there are."""

from pathlib import Path

from kdbench.docs.methods import golden, shipped_methods

ROOT = Path(__file__).parent.parent


def test_pages_count_the_methods_that_ship():
    methods = list(shipped_methods())
    with_golden = sum(bool(list(golden(name))) for name in methods)
    comparison = (ROOT / "docs" / "background" / "comparison.md").read_text()
    assert f"For {with_golden} of {len(methods)} methods, loss" in (ROOT / "README.md").read_text()
    assert f"| transfer methods | {len(methods)} listed," in comparison
    assert f"Losses of {with_golden} methods" in comparison
