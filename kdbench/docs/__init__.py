"""The reference pages of the documentation, made from what they describe: `python -m kdbench.docs docs/reference`."""

from collections.abc import Callable, Mapping

from kdbench.docs.checks import checks_page
from kdbench.docs.commands import commands_page
from kdbench.docs.interface import api_page, interface_page
from kdbench.docs.methods import methods_page
from kdbench.docs.networks import networks_page
from kdbench.docs.results import results_page
from kdbench.docs.values import dataset_page, recipe_page, suite_page

PAGES: Mapping[str, Callable[[], str]] = {
    "command-line": commands_page,
    "suite-keys": suite_page,
    "recipe-keys": recipe_page,
    "dataset-keys": dataset_page,
    "method-interface": interface_page,
    "api": api_page,
    "methods": methods_page,
    "networks": networks_page,
    "checks": checks_page,
    "results-folder": results_page,
}
"""By the name of their file."""
