"""What names of methods look like in LaTeX where a report asks for more than their text: bold, and with their papers."""

from __future__ import annotations

from collections.abc import Mapping

from kdbench.report.compare import Comparison
from kdbench.report.formats.latex import escaped


def latex_names(comparison: Comparison) -> Mapping[str, str]:
    r"""By label, LaTeX for the methods that are highlighted or cited, such as `\textbf{Mine}` and `FT~\cite{ft}`.

    A method without a paper in methods.bib has no citation.
    """
    options = comparison.options
    methods = dict(zip(comparison.results["label"], comparison.results["method"], strict=True))
    keys: Mapping[str, list[str]] = {}
    if options.cite:
        from kdbench.report.formats.bibtex import cited  # imports torch, which tables need not

        keys = {label: cited(method) for label, method in methods.items()}
    names = {}
    for label in methods:
        text = rf"\textbf{{{escaped(label)}}}" if label in comparison.highlighted else escaped(label)
        names[label] = rf"{text}~\cite{{{','.join(keys[label])}}}" if keys.get(label) else text
    return {label: name for label, name in names.items() if name != escaped(label)}
