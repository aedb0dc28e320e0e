"""The evaluation as a table for the terminal and as one HTML page with plots."""

import io
from html import escape
from math import log10
from typing import Any

import numpy as np

from probes.registry import DECODINGS, EFFORTS

_OWN, _OTHER, _GREY = "#0b6e99", "#b0682a", "#8a8f98"


def table(found: dict[str, Any]) -> str:
    """Methods by mean regret, cheapest figures first, for both decodings."""
    lines = []
    for decoding in (d for d in DECODINGS if d in found):
        part = found[decoding]
        lines += [
            "",
            f"{decoding}: {part['sweeps']} sweeps of {part['policies']} policies in {len(part['families'])} families, "
            f"{len(part['tasks'])} tasks; each predicted without its family (for task rows: without its task)",
            f"{'method':40} {'n':>3} {'cost':>7}  {'regret in C (90 %)':22} {'top 3':>6} {'points':>6}  "
            f"{'Spearman':18} {'without depth':18}",
        ]
        for name, m in by_regret(part):
            cells = f"{_interval(m['regret']):22} {m['regret_top3']['mean']:6.3f} {m['points']['mean']:6.1f}"
            rest = f"{_interval(m['spearman'], 2):18} {_interval(m['depth_residual'], 2):18}"
            lines.append(f"{name:40} {m['n']:3d} {m['cost']:7.2%}  {cells}  {rest}")
        ceiling = part["ceiling"]
        lines.append(
            f"{'the best layer, measured again':40} {'':3} {'':7}  {_interval(ceiling['regret_floor']):22} {'':6} "
            f"{'':6}  {_interval(ceiling['spearman'], 2):18}"
        )
        for effort in EFFORTS:
            for what, p in part["predictors"][effort].items():
                lines.append(
                    f"{effort:7} {what:6} left out: coverage of 90 % intervals {_interval(p['coverage'], 2)}, width "
                    f"{p['width']['mean']:.2f}; without depth {p['depth_residual']['mean']:+.2f} (p = "
                    f"{p['depth_residual_p']:.4f}); regret {_interval(p['regret'])}; best layer picked "
                    f"{p['pick_is_best']['mean']:.0%}, said {p['p_best_of_pick']['mean']:.0%}; "
                    + ", ".join(f"{name} ×{n}" for name, n in p["candidates"].items())
                )
        later = part["measured_later"]
        if later["sweeps"]:
            means = {name: m["regret"]["mean"] for name, m in later["methods"].items()}
            lines.append(
                f"on {later['sweeps']} sweeps measured after the rules were chosen: "
                + ", ".join(f"{name} {means[name]:.3f}" for name in sorted(means, key=means.get))
            )
        best = part["paired"]["best_baseline"]
        for name, against in part["paired"].items():
            if name != "best_baseline":
                lines.append(f"{name} loses {_interval(against[best], 3, sign=True)} C less than {best}")
    lines += ["", "published sweeps (arXiv 2607.01232), regret in C over the layers measured, mean over models:"]
    for name, by_model in found["published"].items():
        regret, rho = (np.mean([m[figure] for m in by_model.values()]) for figure in ("regret", "spearman"))
        lines.append(f"{name:40} {regret:.3f}  Spearman {rho:+.2f}")
    return "\n".join(lines)


def by_regret(part: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Methods, lowest mean regret first."""
    return sorted(part["methods"].items(), key=lambda item: item[1]["regret"]["mean"])


def page(found: dict[str, Any]) -> str:
    """The whole page, with inline SVG: no script, no network."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>How good is the advisor's predictor?</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#1d2129}"
        "table{border-collapse:collapse;font-size:14px;width:100%}"
        "td,th{white-space:nowrap;padding:.25rem .6rem;text-align:right;"
        "border-bottom:1px solid #e3e5e8}td:first-child,th:first-child{text-align:left}tr.own{font-weight:600;"
        "color:#0b6e99}svg{width:100%;height:auto}h2{margin-top:2.5rem}p.note{color:#555}</style>",
        "<h1>How good is the advisor's predictor?</h1>",
        f"<p>{found['whole']} whole sweeps out of {found['pairs']} policy-task pairs (the others have no headroom). ",
        "Every sweep is predicted by a predictor that was chosen and fitted without its model family. Regret is how ",
        "much less contribution C the pick brings than the layer that the sweep found best; the floor is what the ",
        "best layer itself would lose if measured again. Intervals are 90 %, over policies.</p>",
    ]
    for decoding in (d for d in DECODINGS if d in found):
        part = found[decoding]
        parts += [
            f"<h2>Scored {'greedily' if decoding == 'greedy' else 'by sampling'}</h2>",
            f"<p>{part['sweeps']} sweeps, {part['policies']} policies, {len(part['families'])} families "
            f"({', '.join(part['families'])}), {len(part['tasks'])} tasks ({', '.join(part['tasks'])}).</p>",
            _plots(part),
            _html_table(part),
            _predictors(part),
            _measured_later(part["measured_later"]),
        ]
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{m['regret']:.2f} ({m['spearman']:+.2f})</td>" for m in by_model.values())
        + f"<td>{np.mean([m['regret'] for m in by_model.values()]):.3f}</td></tr>"
        for name, by_model in found["published"].items()
    )
    models = next(iter(found["published"].values()))
    head = "".join(f"<th>{escape(model.rsplit('/', 1)[-1])}</th>" for model in models)
    parts += [
        "<h2>On the published sweeps of real models</h2>",
        "<p>Position as fitted on small policies, on the seven models of arXiv 2607.01232: regret in C over the ",
        "layers that were measured there (Spearman).</p>",
        f"<table><tr><th>position by</th>{head}<th>mean regret</th></tr>{rows}</table>",
    ]
    return "\n".join(parts) + "\n"


def _html_table(part: dict[str, Any]) -> str:
    head = ("method", "sweeps", "cost", "regret in C", "top 3", "points", "Spearman", "Kendall", "without depth")
    rows = []
    for name, m in by_regret(part):
        cells = (
            escape(name),
            m["n"],
            f"{m['cost']:.1%}",
            _interval(m["regret"]),
            f"{m['regret_top3']['mean']:.3f}",
            f"{m['points']['mean']:.1f}",
            *(_interval(m[figure], 2) for figure in ("spearman", "kendall", "depth_residual")),
        )
        rows.append(f"<tr{_own(name)}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    ceiling = part["ceiling"]
    rows.append(
        f"<tr><td>the best layer, measured again</td><td></td><td></td><td>{_interval(ceiling['regret_floor'])}</td>"
        f"<td></td><td></td><td>{_interval(ceiling['spearman'], 2)}</td><td></td><td></td></tr>"
    )
    return f"<table><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr>{''.join(rows)}</table>"


def _predictors(part: dict[str, Any]) -> str:
    head = (
        "effort",
        "left out",
        "coverage",
        "width",
        "C covered",
        "without depth (p)",
        "best picked / said",
        "fitted",
    )
    rows = []
    for effort in EFFORTS:
        for what, p in part["predictors"][effort].items():
            cells = (
                effort,
                what,
                _interval(p["coverage"], 2),
                f"{p['width']['mean']:.2f}",
                f"{p['contribution_coverage']['mean']:.0%}",
                f"{p['depth_residual']['mean']:+.2f} ({p['depth_residual_p']:.4f})",
                f"{p['pick_is_best']['mean']:.0%} / {p['p_best_of_pick']['mean']:.0%}",
                ", ".join(f"{name} ×{n}" for name, n in p["candidates"].items()),
            )
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<p></p><table><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr>{''.join(rows)}</table>"


def _own(name: str) -> str:
    return " class='own'" if name.startswith("advisor") else ""


def _measured_later(later: dict[str, Any]) -> str:
    """The methods on the sweeps that were measured after the rules had been chosen on the others."""
    if not later["sweeps"]:
        return ""
    methods = sorted(later["methods"].items(), key=lambda item: item[1]["regret"]["mean"])
    rows = "".join(
        f"<tr{_own(name)}><td>{escape(name)}</td>"
        f"<td>{_interval(m['regret'])}</td><td>{_interval(m['spearman'], 2)}</td>"
        f"<td>{_interval(m['depth_residual'], 2)}</td></tr>"
        for name, m in methods
    )
    return (
        f"<p>On the {later['sweeps']} sweeps ({later['policies']} policies) that were measured after it was chosen how "
        "warm-ups are run and scored, and which features they give:</p><table><tr><th>method</th><th>regret in C</th>"
        f"<th>Spearman</th><th>without depth</th></tr>{rows}</table>"
    )


def _plots(part: dict[str, Any]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "advisor"}):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        cost, chance = figure.subplots(1, 2, width_ratios=(2.2, 1))
        floor = part["ceiling"]["regret_floor"]["mean"]
        cost.axhline(floor, color=_GREY, linestyle=":", linewidth=1)
        cost.annotate("the best layer, measured again", (1.0, floor), color=_GREY, fontsize=7, ha="right", va="bottom")
        placed: list[tuple[float, float]] = []
        highest = max(m["regret"]["mean"] for m in part["methods"].values())
        gap = 0.03 * highest  # between labels
        for name, m in by_regret(part):
            own, x, y = name.startswith("advisor"), max(m["cost"], 1e-4), m["regret"]["mean"]
            color = _OWN if own else _OTHER
            cost.plot([x], [y], "o" if own else "s", color=color, markersize=7 if own else 4, zorder=3)
            if own:
                cost.plot([x, x], [m["regret"]["low"], m["regret"]["high"]], color=color, linewidth=1)
            tries = (y + sign * i * gap / 2 for i in range(200) for sign in (1, -1))
            height = next(
                h for h in tries if not any(abs(h - o) < gap and abs(log10(x / at)) < 1.3 for at, o in placed)
            )
            placed.append((x, height))
            line = {"arrowstyle": "-", "color": color, "linewidth": 0.4} if abs(height - y) > gap else None
            cost.annotate(name, (x, y), (x * 1.2, height), fontsize=6.5, color=color, va="center", arrowprops=line)
        cost.set_xscale("log")
        cost.set_xlim(7e-5, 2)
        cost.set_xticks([1e-4, 1e-3, 1e-2, 0.1, 1], ["free", "0.1 %", "1 %", "10 %", "100 %"])
        cost.set_xlabel("cost, share of a sweep")
        cost.set_ylabel("regret in C (mean)")
        cost.set_ylim(0, 1.12 * highest)
        chance.plot([0, 0.8], [0, 0.8], color=_GREY, linewidth=1, linestyle=":")
        for effort, mark in zip(EFFORTS, ("^", "s", "o"), strict=True):
            bins = part["predictors"][effort]["family"]["p_best"]
            chance.plot([b["said"] for b in bins], [b["seen"] for b in bins], mark + "-", label=effort, markersize=4)
        chance.set_xlabel("P(best) said")
        chance.set_ylabel("share that was best")
        chance.legend(frameon=False)
        for axes in (cost, chance):
            axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _interval(estimate: dict[str, float], digits: int = 3, sign: bool = False) -> str:
    plus = "+" if sign else ""
    value, low, high = (f"{estimate[end]:{plus}.{digits}f}" for end in ("mean", "low", "high"))
    return f"{value} ({low}…{high})"
