"""Plots of a recommendation as inline SVG that follow the page's light or dark colours."""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation
    from calibration.race import Race

# Placeholders that are swapped for CSS after drawing, so that one picture serves light and dark pages.
_INK, _ACCENT, _SOFT = "#010203", "#040506", "#070809"
_CSS = {_INK: "var(--ink)", _ACCENT: "var(--accent)", _SOFT: "var(--soft)"}


def ranking_plot(rec: "Recommendation") -> str:
    """Expected contribution of every layer with its 90 % interval over depth, and measured ones where a sweep is known.

    The pick is marked in colour and by name.
    """
    layers = rec.layers
    figure, axes = _figure(7.2, 2.8)
    x = np.arange(len(layers))
    values = np.array([layer["contribution"] for layer in layers])
    low, high = (np.array([layer[end] for layer in layers]) for end in ("low", "high"))
    for k in x:
        chosen = k in rec.pick
        colour = _ACCENT if chosen else _INK
        axes.plot([k, k], [low[k], high[k]], color=colour, linewidth=2.4 if chosen else 1.1)
        axes.plot(k, values[k], "D" if chosen else "o", color=colour, markersize=7 if chosen else 4.5)
        if chosen:
            axes.annotate("pick", (k, high[k]), ha="center", va="bottom", color=_INK, fontweight="bold")
    for sweep, mark in zip(rec.known, ("x", "+", "1", "2"), strict=False):
        known = sorted(sweep.contributions)
        measured = [sweep.contributions[k] for k in known]
        axes.plot(known, measured, mark, color=_INK, markersize=7, label=f"measured: {sweep.source}, {sweep.task}")
    if rec.known:
        axes.legend(frameon=False, fontsize=8, loc="best", labelcolor=_INK)
    axes.set(xlabel="layer", ylabel="expected contribution C")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.15)
    return _svg(figure, "Expected contribution of every layer")


def race_plot(race: "Race", pick: list[int]) -> str:
    """Gain of every layer over the base policy at each rung, a line a layer; where it stopped and why is marked."""
    figure, axes = _figure(7.2, 3.2)
    axes.axhline(0, color=_INK, linewidth=0.6)
    gains: dict[int, list[tuple[int, float, str | None]]] = {}
    for rung in race.rungs:
        for s in rung.standings:  # best first, so that the first of a layer is its better rate
            own = gains.setdefault(s.layer, [])
            if not own or own[-1][0] != rung.step:
                own.append((rung.step, s.gain.value, s.out))
    for layer, points in gains.items():
        steps, values, outs = zip(*points, strict=True)
        chosen = layer in pick
        look = {"color": _ACCENT if chosen else _INK, "linewidth": 2.4 if chosen else 0.9}
        axes.plot(steps, values, marker="o", markersize=6 if chosen else 3, **look, alpha=1 if chosen else 0.7)
        if outs[-1] is not None:
            axes.plot(steps[-1], values[-1], marker="x" if outs[-1] == "behind" else "_", markersize=9, color=_INK)
        if chosen or len(points) == len(race.rungs):
            label = f" {layer} (pick)" if chosen else f" {layer}"
            axes.annotate(label, (steps[-1], values[-1]), va="center", color=_INK, fontsize=8)
    axes.set(xlabel="step of the warm-ups", ylabel="gain in validation score")
    axes.set_xticks([rung.step for rung in race.rungs])
    axes.margins(x=0.08)
    return _svg(figure, "The race")


def probe_plots(rec: "Recommendation") -> list[tuple[str, str]]:
    """(column, plot over depth) for every measured column."""
    return [
        (name, _profile(name, values, rec.columns[name].unit, rec.pick)) for name, values in rec.table.columns.items()
    ]


def spread_plot(rec: "Recommendation") -> str | None:
    """How often each mean reward occurs among prompt groups; None without rollouts."""
    if rec.reward is None:
        return None
    means = np.array([m for m in rec.reward["group_means"] if m is not None])
    if len(means) == 0:
        return None
    low, high = float(means.min()), float(means.max())
    edges = np.linspace(low, high if high > low else low + 1, rec.protocol["group_size"] + 2)
    figure, axes = _figure(4.2, 2.2)
    axes.hist(means, bins=edges, color=_SOFT, edgecolor=_INK, linewidth=0.5)
    axes.set(xlabel="mean reward of a prompt group", ylabel="groups")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, "Reward spread over prompt groups")


def contribution_plot(results: dict, pick: tuple[int, ...] | None) -> str | None:
    """Gain of each single layer with its 90 % interval over depth, and of all parameters as a line; None if empty."""
    layers = [r for r in results.values() if r.layers and len(r.layers) == 1 and r.gain is not None]
    full = results.get("full")
    if not layers:
        return None
    figure, axes = _figure(7.2, 2.8)
    axes.axhline(0, color=_INK, linewidth=0.6)
    for r in layers:
        chosen, gain = r.layers == pick, r.gain
        colour = _ACCENT if chosen else _INK
        axes.plot([r.layers[0]] * 2, [gain.low, gain.high], color=colour, linewidth=2.4 if chosen else 1.2)
        axes.plot(r.layers[0], gain.value, "D" if chosen else "o", color=colour, markersize=7 if chosen else 4.5)
        if chosen:
            place = {"ha": "center", "va": "bottom", "fontweight": "bold"}
            axes.annotate("pick", (r.layers[0], gain.high), color=_INK, **place)
    if full is not None and full.gain is not None:
        axes.axhline(full.gain.value, color=_INK, linewidth=1.1, linestyle="--", label="all parameters")
        axes.axhspan(full.gain.low, full.gain.high, color=_SOFT, alpha=0.35, linewidth=0)
        axes.legend(frameon=False, fontsize=8, loc="best", labelcolor=_INK)
    axes.set(xlabel="layer", ylabel="gain in held-out score")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.15)
    return _svg(figure, "Gain of every trained layer")


def curves_plot(curves: dict[str, list[list[float]]], pick: str | None) -> str | None:
    """Mean reward in training over steps of each arm, mean over its runs; the pick in colour. None if empty."""
    if not curves:
        return None
    figure, axes = _figure(7.2, 2.8)
    styles = ("-", "--", ":", "-.")
    plain = 0
    for arm, runs in curves.items():
        steps = min(map(len, runs))
        mean = np.nanmean(np.array([run[:steps] for run in runs], dtype=float), 0)
        look = {"color": _ACCENT, "linewidth": 2.4}
        if arm != pick:
            look = {"color": _INK, "linewidth": 1.1, "linestyle": styles[plain % len(styles)], "alpha": 0.85}
            plain += 1
        axes.plot(np.arange(1, steps + 1), mean, label=arm + (" (pick)" if arm == pick else ""), **look)
    axes.set(xlabel="step", ylabel="reward in training")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=_INK)
    return _svg(figure, "Learning curves")


def _profile(name: str, values: np.ndarray, unit: str, pick: list[int]) -> str:
    figure, axes = _figure(3.4, 1.9)
    x = np.arange(len(values))
    axes.plot(x, values, color=_INK, linewidth=1.1, marker="o", markersize=2.5)
    for k in pick:
        axes.plot([k], [values[k]], marker="D", markersize=6, color=_ACCENT, markeredgecolor=_INK, linestyle="none")
    positive = values[values > 0]
    if len(positive) == len(values) and values.max() > 100 * np.median(values):
        axes.set_yscale("log")
    elif np.abs(values).max() > 30 * np.median(np.abs(values)) > 0:
        axes.set_yscale("symlog", linthresh=float(np.median(np.abs(values))))
        axes.yaxis.get_major_locator().numticks = 4
    axes.set_xlabel("layer", fontsize=8)
    axes.set_ylabel(unit, fontsize=7)
    return _svg(figure, f"{name} over depth")


def _figure(width: float, height: float):
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _svg(figure, title: str) -> str:
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    text = stream.getvalue()
    text = text[text.index("<svg") :]  # no XML header inside a page
    for placeholder, css in _CSS.items():
        text = text.replace(placeholder, css)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
