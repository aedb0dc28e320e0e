"""A family report as one HTML page that opens offline: no scripts, plots inline."""

from typing import TYPE_CHECKING

from advisor.reports import family as words
from advisor.reports import family_plots as plots
from advisor.reports.html import render
from advisor.reports.plots import Data

if TYPE_CHECKING:
    from advisor.family import FamilyReport

_FIGURES = ("spearman", "low", "high", "kendall", "without_depth", "ceiling")


def html_family(report: "FamilyReport") -> str:
    """The whole report."""
    letters = words.letters(report)
    family = report.family
    pairs = Data(
        ("from", "to", "what changes", "layers", "ρ", "low", "high", "Kendall's τ", "ρ without depth", "ceiling"),
        [
            (p.a.name, p.b.name, words.SHORT[p.relation], p.n, *(getattr(p, figure) for figure in _FIGURES))
            for p in family.pairs
        ],
    )
    return render(
        "family.html.j2",
        report=report,
        words=words,
        letters=letters,
        heat_map=plots.heat_map(report, letters),
        heat_data=plots.heat_data(report, letters),
        lowest=plots.LOWEST,
        curve_plot=plots.curve_plot(report),
        curve_data=plots.curve_data(report),
        rules_plot=plots.rules_plot(report, words.RULES) if family.rules else None,
        matrix=words.matrix(report),
        pairs=pairs,
    )
