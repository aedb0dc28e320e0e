"""The report as one HTML file that opens offline: no scripts, plots inline."""

from typing import TYPE_CHECKING

from advisor.reports import plots, wording
from probes.table import depth_correlation

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation


def html_report(recommendation: "Recommendation") -> str:
    """The whole report."""
    rec = recommendation
    ranked = rec.verdict.has_ranking
    return render(
        "report.html.j2",
        rec=rec,
        layers=[rec.layers[k] for k in rec.order] if ranked else [],
        headline=wording.headline(rec),
        reward_line=wording.reward_line(rec),
        cost_line=wording.cost_line(rec),
        baselines=[(wording.BASELINE_NAMES[name], k) for name, k in rec.baselines.items()],
        ranking_plot=plots.ranking_plot(rec) if ranked else None,
        raced=rec.race is not None and bool(rec.race.rungs),
        race_plot=plots.race_plot(rec.race, rec.pick) if rec.race and rec.race.rungs else None,
        wording=wording,
        ranking_data=plots.ranking_data(rec),
        spread_plot=plots.spread_plot(rec),
        spread_data=plots.spread_data(rec),
        probe_plots=plots.probe_plots(rec),
        probe_data=plots.probe_data(rec),
        decoding=rec.protocol["decoding"],
        depth_correlation=depth_correlation,
    )


def render(template: str, **values) -> str:
    """A template of this folder with every value escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("advisor", "reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": wording.number}
    return environment.get_template(template).render(**values)
