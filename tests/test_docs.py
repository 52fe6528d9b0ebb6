"""The page of methods says what the methods say, and every method says where it comes from."""

import runpy
from pathlib import Path

import pytest

from kdbench.catalogue import docs as catalogue_docs
from kdbench.catalogue.docs import GOLDEN, golden, methods_page, section, shipped_methods, stages
from kdbench.method.description import describe_method

ROOT = Path(__file__).parent.parent


def test_the_page_of_methods_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "methods.md").read_text()
    assert page == methods_page(), "write it anew: python -m kdbench.catalogue.docs > docs/reference/methods.md"


def test_the_command_in_its_first_lines_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"python -m {catalogue_docs.__name__} > docs/reference/methods.md" in methods_page()
    runpy.run_path(catalogue_docs.__file__, run_name="__main__")
    assert capsys.readouterr().out == methods_page()


def test_it_tells_a_methods_formula_paper_stages_defaults_and_golden_numbers() -> None:
    text = section("ft")
    for part in (
        "## ft\n```\nCE(z_s, y) + beta mean |n(translator(f_s)) - n(factor(f_t))|",
        '* Paper: Kim, Park and Kwak, "Paraphrasing complex network", NeurIPS 2018',
        "* Code: https://github.com/Jangho-Kim/Factor-Transfer-pytorch\n* Deviations: none where",
        "* Reads: features\n",
        "* Stages before the main training: paraphraser, 6 epochs, from the teacher alone, learning rate 0.1\n",
        "* Parameters and defaults: `k` 0.5, `beta` 500, `paraphraser_epochs` 6,",
        "* Golden numbers: `ft` (the code of Kim et al.)\n",
    ):
        assert part in text
    assert list(stages("ab")) == ["boundaries, 30 epochs, of the student"]
    assert "* Reads: no teacher\n" in section("scratch")


def test_every_method_names_the_code_that_it_follows() -> None:
    assert {name for name in shipped_methods() if not describe_method(name)["code"]} == {"scratch"}


def test_every_file_of_golden_numbers_has_a_source_and_a_method() -> None:
    assert GOLDEN.keys() == {file.stem for file in (ROOT / "tests" / "golden").glob("*.safetensors")}
    told = [entry for name in shipped_methods() for entry in golden(name)]
    assert sorted(told) == sorted(f"`{file}` ({source})" for file, source in GOLDEN.items())


def test_only_these_methods_have_no_golden_numbers() -> None:
    without = {name for name in shipped_methods() if not list(golden(name))}
    assert without == {"scratch", "dml", "fitnets", "ft_repdistiller", "simkd"}


def test_every_method_says_in_a_few_words_what_it_transfers() -> None:
    described = {name: describe_method(name) for name in shipped_methods()}
    assert all(1 <= len(method["transfers"].split()) <= 6 for method in described.values())
    assert {method["family"] for method in described.values()} == {"baseline", "logits", "features", "relations"}
    assert len({method["transfers"] for method in described.values()}) == len(described), "no two say the same"
    without = {name for name, method in described.items() if not method["published"]}
    assert without == {name for name, method in described.items() if method["paper"].startswith("none")}
    ft = described["ft"]
    assert (ft["transfers"], ft["family"], ft["published"]) == ("factors of the last maps", "features", "NeurIPS 2018")
    assert "| features | [ft](#ft) | factors of the last maps | NeurIPS 2018 |\n" in methods_page()
