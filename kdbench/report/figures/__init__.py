"""The figures of a comparison, as matplotlib figures: one look for each method everywhere, sizes in inches.

`comparison.options.figures` says how large they are and how they look.
"""

from kdbench.report.figures.by_method import results
from kdbench.report.figures.cost_front import cost
from kdbench.report.figures.critical_difference import ranks
from kdbench.report.figures.files import save
from kdbench.report.figures.gain_forest import forest
from kdbench.report.figures.learning_curves import curves
from kdbench.report.figures.looks import Look, method_colours, method_looks
from kdbench.report.figures.profile_curves import profile

__all__ = ["Look", "cost", "curves", "forest", "method_colours", "method_looks", "profile", "ranks", "results", "save"]
