"""Plots as inline SVG that follow the page's light or dark colours; beside each, its numbers as a table."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.runs import FULL

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation
    from calibration.race import Race

# Placeholders that are swapped for CSS after drawing, so that one picture serves light and dark pages.
INK, ACCENT, SOFT = "#010203", "#040506", "#070809"
_CSS = {INK: "var(--ink)", ACCENT: "var(--accent)", SOFT: "var(--soft)"}
_BROAD = 5.0  # inches


@dataclass(frozen=True)
class Data:
    """The numbers of a plot: one heading a column, one cell a number or a short text."""

    headings: tuple[str, ...]
    rows: list[tuple]


def ranking_plot(rec: "Recommendation") -> str:
    """Expected contribution of every layer with its 90 % interval over depth, and measured ones where a sweep is known.

    The pick is marked in colour and by name.
    """
    layers = rec.layers
    figure, axes = new_figure(7.2, 2.8)
    x = np.arange(len(layers))
    values = np.array([layer["contribution"] for layer in layers])
    low, high = (np.array([layer[end] for layer in layers]) for end in ("low", "high"))
    for k in x:
        chosen = k in rec.pick
        colour = ACCENT if chosen else INK
        axes.plot([k, k], [low[k], high[k]], color=colour, linewidth=2.4 if chosen else 1.1)
        axes.plot(k, values[k], "D" if chosen else "o", color=colour, markersize=7 if chosen else 4.5)
        if chosen:
            axes.annotate("pick", (k, high[k]), ha="center", va="bottom", color=INK, fontweight="bold")
    for sweep, mark in zip(rec.known, ("x", "+", "1", "2"), strict=False):
        known = sorted(sweep.contributions)
        measured = [sweep.contributions[k] for k in known]
        axes.plot(known, measured, mark, color=INK, markersize=7, label=f"measured: {sweep.source}, {sweep.task}")
    if rec.known:
        axes.legend(frameon=False, fontsize=8, loc="best", labelcolor=INK)
    axes.set(xlabel="layer", ylabel="expected contribution C")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.15)
    return as_svg(figure, "Expected contribution of every layer")


def ranking_data(rec: "Recommendation") -> Data:
    """What `ranking_plot` shows."""
    headings = ("layer", "expected C", "low", "high", *(f"measured: {s.source}, {s.task}" for s in rec.known))
    return Data(
        headings,
        [
            (
                k,
                *(layer[name] for name in ("contribution", "low", "high")),
                *(s.contributions.get(k) for s in rec.known),
            )
            for k, layer in enumerate(rec.layers)
        ],
    )


def race_plot(race: "Race", pick: list[int]) -> str:
    """Gain of every layer over the base policy at each rung, a line a layer; where it stopped and why is marked."""
    figure, axes = new_figure(7.2, 3.2)
    axes.axhline(0, color=INK, linewidth=0.6)
    gains: dict[int, list[tuple[int, float, str | None]]] = {}
    for rung in race.rungs:
        for s in rung.standings:  # best first, so that the first of a layer is its better rate
            own = gains.setdefault(s.layer, [])
            if not own or own[-1][0] != rung.step:
                own.append((rung.step, s.gain.value, s.out))
    for layer, points in gains.items():
        steps, values, outs = zip(*points, strict=True)
        chosen = layer in pick
        look = {"color": ACCENT if chosen else INK, "linewidth": 2.4 if chosen else 0.9}
        axes.plot(steps, values, marker="o", markersize=6 if chosen else 3, **look, alpha=1 if chosen else 0.7)
        if outs[-1] is not None:
            axes.plot(steps[-1], values[-1], marker="x" if outs[-1] == "behind" else "_", markersize=9, color=INK)
        if chosen or len(points) == len(race.rungs):
            label = f" {layer} (pick)" if chosen else f" {layer}"
            axes.annotate(label, (steps[-1], values[-1]), va="center", color=INK, fontsize=8)
    axes.set(xlabel="step of the warm-ups", ylabel="gain in validation score")
    axes.set_xticks([rung.step for rung in race.rungs])
    axes.margins(x=0.08)
    return as_svg(figure, "The race")


def probe_plots(rec: "Recommendation") -> list[tuple[str, str]]:
    """(column, plot over depth) for every measured column."""
    return [
        (name, _profile(name, values, rec.columns[name].unit, rec.pick)) for name, values in rec.table.columns.items()
    ]


def probe_data(rec: "Recommendation") -> Data:
    """What `probe_plots` show."""
    names = list(rec.table.columns)
    rows = [(k, *(float(rec.table.columns[name][k]) for name in names)) for k in range(rec.table.n_layers)]
    return Data(("layer", *(name.replace("_", " ") for name in names)), rows)


def spread_plot(rec: "Recommendation") -> str | None:
    """How often each mean reward occurs among prompt groups; None without rollouts."""
    spread = _spread(rec)
    if spread is None:
        return None
    counts, edges = spread
    figure, axes = new_figure(4.2, 2.2)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SOFT, edgecolor=INK, linewidth=0.5)
    axes.set(xlabel="mean reward of a prompt group", ylabel="groups")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return as_svg(figure, "Reward spread over prompt groups")


def spread_data(rec: "Recommendation") -> Data | None:
    """What `spread_plot` shows."""
    spread = _spread(rec)
    if spread is None:
        return None
    counts, edges = spread
    rows = [(float(low), float(high), int(n)) for low, high, n in zip(edges, edges[1:], counts, strict=False)]
    return Data(("mean reward from", "to", "groups"), rows)


def _spread(rec: "Recommendation") -> tuple[np.ndarray, np.ndarray] | None:
    """Prompt groups in each bin of mean reward, and the edges of the bins."""
    means = np.array([m for m in rec.reward["group_means"] if m is not None]) if rec.reward else np.array([])
    if len(means) == 0:
        return None
    low, high = float(means.min()), float(means.max())
    edges = np.linspace(low, high if high > low else low + 1, rec.protocol["group_size"] + 2)
    return np.histogram(means, bins=edges)[0], edges


def contribution_plot(results: dict, pick: tuple[int, ...] | None) -> str | None:
    """Gain of each single layer with its 90 % interval over depth, and of all parameters as a line; None if empty."""
    layers = [r for r in results.values() if r.layers and len(r.layers) == 1 and r.gain is not None]
    full = results.get("full")
    if not layers:
        return None
    figure, axes = new_figure(7.2, 2.8)
    axes.axhline(0, color=INK, linewidth=0.6)
    for r in layers:
        chosen, gain = r.layers == pick, r.gain
        colour = ACCENT if chosen else INK
        axes.plot([r.layers[0]] * 2, [gain.low, gain.high], color=colour, linewidth=2.4 if chosen else 1.2)
        axes.plot(r.layers[0], gain.value, "D" if chosen else "o", color=colour, markersize=7 if chosen else 4.5)
        if chosen:
            place = {"ha": "center", "va": "bottom", "fontweight": "bold"}
            axes.annotate("pick", (r.layers[0], gain.high), color=INK, **place)
    if full is not None and full.gain is not None:
        axes.axhline(full.gain.value, color=INK, linewidth=1.1, linestyle="--", label="all parameters")
        axes.axhspan(full.gain.low, full.gain.high, color=SOFT, alpha=0.35, linewidth=0)
        axes.legend(frameon=False, fontsize=8, loc="best", labelcolor=INK)
    axes.set(xlabel="layer", ylabel="gain in held-out score")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.15)
    return as_svg(figure, "Gain of every trained layer")


def contribution_data(results: dict) -> Data:
    """What `contribution_plot` shows."""
    known = [(name, r.gain) for name, r in results.items() if (r.layers is None or len(r.layers) == 1) and r.gain]
    rows = [("all parameters" if name == FULL else name, gain.value, gain.low, gain.high) for name, gain in known]
    return Data(("trained", "gain", "low", "high"), rows)


def curves_plot(curves: dict[str, list[list[float]]], pick: str | None) -> str | None:
    """Mean reward in training over steps of each arm, mean over its runs; the pick in colour. None if empty."""
    if not curves:
        return None
    figure, axes = new_figure(7.2, 2.8)
    styles, marks = ("-", "--", ":", "-."), ("", "o", "s", "^", "v", "D", "P", "X")
    plain = 0
    for arm, runs in curves.items():
        mean = _mean_curve(runs)
        look = {"color": ACCENT, "linewidth": 2.4}
        if arm != pick:
            look = {"color": INK, "linewidth": 1.1, "linestyle": styles[plain % len(styles)], "alpha": 0.85}
            look |= {"marker": marks[plain // len(styles) % len(marks)], "markersize": 3.5}
            plain += 1
        axes.plot(np.arange(1, len(mean) + 1), mean, label=arm + (" (pick)" if arm == pick else ""), **look)
    axes.set(xlabel="step", ylabel="reward in training")
    axes.xaxis.get_major_locator().set_params(integer=True)
    look = {"frameon": False, "fontsize": 8, "labelcolor": INK, "ncols": -(-len(curves) // 14)}
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **look)
    return as_svg(figure, "Learning curves")


def curves_data(curves: dict[str, list[list[float]]]) -> Data:
    """What `curves_plot` shows."""
    means = [_mean_curve(runs) for runs in curves.values()]
    longest = max(map(len, means), default=0)
    rows = [(i + 1, *(_plain(mean[i]) if i < len(mean) else None for mean in means)) for i in range(longest)]
    return Data(("step", *curves), rows)


def _mean_curve(runs: list[list[float]]) -> np.ndarray:
    """Mean over runs up to the end of the shortest; NaN where a step's every completion is unscored."""
    steps = min(map(len, runs))
    found = np.array([run[:steps] for run in runs], dtype=float)
    known = np.isfinite(found)
    return np.where(known.any(0), np.where(known, found, 0).sum(0) / np.maximum(1, known.sum(0)), np.nan)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _profile(name: str, values: np.ndarray, unit: str, pick: list[int]) -> str:
    figure, axes = new_figure(3.4, 1.9)
    x = np.arange(len(values))
    axes.plot(x, values, color=INK, linewidth=1.1, marker="o", markersize=2.5)
    for k in pick:
        axes.plot([k], [values[k]], marker="D", markersize=6, color=ACCENT, markeredgecolor=INK, linestyle="none")
    positive = values[values > 0]
    if len(positive) == len(values) and values.max() > 100 * np.median(values):
        axes.set_yscale("log")
    elif np.abs(values).max() > 30 * np.median(np.abs(values)) > 0:
        axes.set_yscale("symlog", linthresh=float(np.median(np.abs(values))))
        axes.yaxis.get_major_locator().numticks = 4
    axes.set_xlabel("layer", fontsize=8)
    axes.set_ylabel(unit, fontsize=7)
    return as_svg(figure, f"{name} over depth")


def new_figure(width: float, height: float):
    """A figure in inches and its axes, without background, top and right border."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def as_svg(figure, title: str) -> str:
    """The figure as SVG for a page, its placeholders swapped for the page's colours; `title` is read aloud."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    text = stream.getvalue()
    text = text[text.index("<svg") :]  # no XML header inside a page
    for placeholder, css in _CSS.items():
        text = text.replace(placeholder, css)
    kind = "broad" if figure.get_figwidth() > _BROAD else "small"  # the page lets broad ones scroll in a narrow window
    return text.replace("<svg ", f'<svg class="{kind}" role="img" aria-label="{title}" ', 1)
