"""What a report shows of the trials that there are: which data sets, pairs and methods, in which order, under which headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import pandas as pd

from kdbench.errors import KdbenchError, listed, nearest
from kdbench.results.method_labels import plain_label
from kdbench.spec.report_options import ReportOptions

T = TypeVar("T")


class Place(NamedTuple):
    """A pair on a data set, under the names that suites give."""

    dataset: str
    teacher: str
    student: str

    @property
    def usual(self) -> str:
        """`resnet56 -> resnet20`."""
        return f"{self.teacher} -> {self.student}"

    def is_called(self, name: str) -> bool:
        """Whether a user means it: `resnet56 -> resnet20`, or with the data set, `cifar100: resnet56 -> resnet20`."""
        spaced = re.sub(r"\s*(->|→)\s*", " -> ", name.strip())
        return spaced in (self.usual, f"{self.dataset}: {self.usual}")


class NamedMethod(NamedTuple):
    """A column of a table: `ft`, which is called `FT` or `FT (k=2)`, and by the report what it is told to."""

    method: str
    usual: str
    label: str

    def is_called(self, name: str) -> bool:
        """Whether a user means it."""
        return name in (self.method, self.usual, self.label, plain_label(self.method))


def named_methods(results: pd.DataFrame) -> list[NamedMethod]:
    """The methods of a frame with the columns `label` and `usual_label`, in its order."""
    found = results.drop_duplicates("label")
    return [NamedMethod(*map(str, row)) for row in found[["method", "usual_label", "label"]].itertuples(index=False)]


def chosen_places(places: Sequence[Place], options: ReportOptions) -> list[Place]:
    """Those that are to be shown, in their order; those of one group together.

    Raises:
        KdbenchError: a data set or a pair that there is not.
    """
    datasets = list(dict.fromkeys(place.dataset for place in places))
    for dataset in options.datasets:
        if dataset not in datasets:
            raise _unknown("datasets", dataset, datasets)
    places = [place for place in places if not options.datasets or place.dataset in options.datasets]
    if options.pairs:
        places = _named("pairs", options.pairs, places, Place.is_called, [place.usual for place in places])
    return _together(places, [_group_of(options, place) for place in places], options)


def of_recipes(results: pd.DataFrame, options: ReportOptions) -> pd.DataFrame:
    """The rows of the recipes that are to be shown.

    Raises:
        KdbenchError: a recipe that there is not.
    """
    names = list(results["recipe"].dropna().unique())
    for part in options.recipes:
        if not any(part in name for name in names):
            raise _unknown("recipes", part, names)
    return results[results["recipe"].map(lambda name: any(part in str(name) for part in options.recipes)).astype(bool)]


def chosen_methods(methods: Sequence[NamedMethod], options: ReportOptions) -> list[NamedMethod]:
    """Those that are to be shown, in their order; those of one group together.

    Raises:
        KdbenchError: a method that there is not.
    """
    if options.methods:
        methods = _named("methods", options.methods, methods, NamedMethod.is_called, [method.usual for method in methods])
    return _together(methods, [_group_of(options, method) for method in methods], options)


def highlighted_methods(methods: Sequence[NamedMethod], options: ReportOptions) -> tuple[str, ...]:
    """The labels of those that are to be highlighted.

    Raises:
        KdbenchError: a method that there is not.
    """
    found = _named("highlight", options.highlight, methods, NamedMethod.is_called, [method.usual for method in methods])
    return tuple(method.label for method in found)


def headings(chosen: Iterable[Place | NamedMethod], options: ReportOptions) -> list[str]:
    """The heading over each, empty where there is none."""
    return [_group_of(options, item) for item in chosen]


def check_groups(places: Sequence[Place], methods: Sequence[NamedMethod], options: ReportOptions) -> None:
    """See that each group has pairs or methods that there are, and that none stands in two.

    Raises:
        KdbenchError: it is not so.
    """
    items: list[Place | NamedMethod] = [*places, *methods]
    for heading, names in options.groups.items():
        if len({type(item) for name in names for item in items if item.is_called(name)}) > 1:
            raise KdbenchError(f"groups: '{heading}' has pairs and methods. Make a group of each.")
        for name in names:
            if not any(item.is_called(name) for item in items):
                raise _unknown("groups", name, [item.usual for item in items])
    for item in items:
        within = [heading for heading, names in options.groups.items() if any(map(item.is_called, names))]
        if len(within) > 1:
            raise KdbenchError(f"groups: '{item.usual}' stands in {' and '.join(within)}. Leave it in one.")


def with_whole_names(results: pd.DataFrame, options: ReportOptions) -> ReportOptions:
    """The options with the whole names of networks: `my_net (weights 1a2b3c4d)` where `my_net` is given a name.

    Everything that is given a name must be in the frame, which is one of `named_methods`, and no two things have one name.

    Raises:
        KdbenchError: it is not so, or a name may be that of several networks.
    """
    methods = dict(zip(results["usual_label"], results["label"], strict=True))
    networks = {*results["teacher"].dropna(), *results["student"]}
    parts = [part for method in results["method"].unique() for part in (method, *method.split("+"))]
    known = list(dict.fromkeys([*parts, *methods, *sorted(networks), *results["dataset"].unique(), "teacher"]))
    names: dict[str, str] = {}
    for name, shown in options.names.items():
        whole = [name] if name in known else sorted(network for network in networks if network.startswith(f"{name} ("))
        if not whole:
            raise _unknown("names", name, known)
        if len(whole) > 1:
            raise KdbenchError(f"names: '{name}' may be {' or '.join(whole)}. Give one of these.")
        if whole[0] in names:
            raise KdbenchError(f"names: '{whole[0]}' would be called '{names[whole[0]]}' and '{shown}'. Give it one name.")
        names[whole[0]] = shown
    others = ({name: names.get(name, name) for name in same} for same in (networks, results["dataset"].unique()))
    for printed in (methods, *others):
        for text in set(printed.values()):
            if len(same := sorted(name for name, shown in printed.items() if shown == text)) > 1:
                raise KdbenchError(f"names: {' and '.join(same)} would both be called '{text}'. Give each a name of its own.")
    return options.model_copy(update={"names": names}) if options.names else options


def chosen_baseline(methods: Sequence[NamedMethod], options: ReportOptions) -> str:
    """The label of the method that gains are given over, whether or not it is shown.

    Raises:
        KdbenchError: there is no such method, or several.
    """
    found = [method.label for method in methods if method.is_called(options.baseline)]
    if len(found) > 1:
        raise KdbenchError(f"baseline: '{options.baseline}' may be {' or '.join(found)}. Give one of these.")
    if not found and "baseline" in options.model_fields_set and options.baseline != "scratch":
        raise _unknown("baseline", options.baseline, [method.usual for method in methods])
    return found[0] if found else options.names.get(options.baseline, plain_label(options.baseline))


def _named(
    key: str, names: Sequence[str], known: Sequence[T], is_called: Callable[[T, str], bool], words: Sequence[str]
) -> list[T]:
    """What is called by each of the names, in their order."""
    chosen: dict[T, None] = {}
    for name in names:
        found = [item for item in known if is_called(item, name)]
        if not found:
            raise _unknown(key, name, words)
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _group_of(options: ReportOptions, item: Place | NamedMethod) -> str:
    return next((heading for heading, names in options.groups.items() if any(map(item.is_called, names))), "")


def _together(items: Sequence[T], groups: Sequence[str], options: ReportOptions) -> list[T]:
    """In the order of the groups, without one first."""
    order: Mapping[str, int] = {heading: position for position, heading in enumerate(("", *options.groups))}
    return [item for _, item in sorted(zip(groups, items, strict=True), key=lambda pair: order[pair[0]])]


def _unknown(key: str, name: str, known: Sequence[str]) -> KdbenchError:
    words = list(dict.fromkeys(known))
    choices = listed(words, most=30)
    return KdbenchError(f"{key}: '{name}' is not in this report.{nearest(name, words)} Choose from {choices}.")
