"""Plots of a family report as inline SVG: the heat map and the curve over depth, each with its numbers as a table."""

from html import escape
from typing import TYPE_CHECKING

from advisor.reports.plots import ACCENT, INK, SOFT, Data, as_svg, new_figure

if TYPE_CHECKING:
    from advisor.family import FamilyReport
    from calibration.profiles import Profile

_LEAST_WIDTH, _ROW, _CELL, _LABEL = 960, 46, 24, 18  # pixels: of the map, a row, its cells, and its name above them
_LEAST_CELL = 25  # wide enough for a number
_STRONGEST = 0.6  # opacity at C 0 and 1: ink stays readable on it in light and dark

LOWEST = -1.0  # C, below which points are left to the table


def heat_map(report: "FamilyReport", letters: list[str]) -> str:
    """Contribution by layer, a row a profile, all stacks stretched to one width.

    Colour goes from one hue at C 0 over none at 0.5 to another at 1; every cell also bears its number, the best layer
    of a row a star and a frame, a layer that was not measured a hatching, and the best zone a line beneath.
    """
    profiles = [*report.profiles, *report.predicted]
    height = _ROW * len(profiles) + 44
    wide = max(_LEAST_WIDTH, _LEAST_CELL * max(p.n_layers for p in profiles))
    parts = [
        f'<svg class="map" role="img" aria-label="Contribution of every layer over relative depth" width="{wide}" '
        f'height="{height}" viewBox="0 0 {wide} {height}" font-family="sans-serif" font-size="11">',
        "<title>Contribution over relative depth</title>",
        '<defs><pattern id="unmeasured" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line x1="0" y1="0" x2="0" y2="6" stroke="var(--soft)" stroke-width="2"/>'
        "</pattern></defs>",
    ]
    for i, (letter, profile) in enumerate(zip(letters, profiles, strict=True)):
        parts += _row(report, letter, profile, i * _ROW, wide)
    parts += _legend(_ROW * len(profiles) + 14)
    return "\n".join([*parts, "</svg>"])


def _row(report: "FamilyReport", letter: str, p: "Profile", top: float, wide: float) -> list[str]:
    kind = ", predicted and not measured" if p.predicted else ""
    name = f"{letter}  {p.model} on {p.task} ({p.n_layers} layers{kind})"
    parts = [f'<text x="2" y="{top + _LABEL - 5}" fill="var(--ink)" font-size="12">{escape(name)}</text>']
    width, y = wide / p.n_layers, top + _LABEL
    small = ' font-size="9"' if width < 30 else ""
    for k in range(p.n_layers):
        x, value = k * width, p.values.get(k)
        if value is None:
            parts.append(_box(x, y, width, 'fill="url(#unmeasured)"', f"layer {k}: not measured"))
            continue
        distance = max(-1.0, min(1.0, 2 * value - 1))
        fill = f'fill="var(--{"warm" if distance > 0 else "cold"})" fill-opacity="{abs(distance) * _STRONGEST:.2f}"'
        parts.append(_box(x, y, width, fill, f"layer {k}: C {value:.2f}"))
        best = k == p.best
        text = ("★" if best and width >= 48 else "") + _short(value, width)
        weight = ' font-weight="700"' if best else ""
        middle = f'x="{x + width / 2:.1f}" y="{y + _CELL / 2 + 4}" text-anchor="middle" fill="var(--ink)"'
        parts.append(f"<text {middle}{small}{weight}>{text}</text>")
    at = p.best * width
    frame = f'x="{at + 1.5:.1f}" y="{y + 1}" width="{width - 3:.1f}" height="{_CELL - 2}"'
    parts.append(f'<rect {frame} fill="none" stroke="var(--ink)" stroke-width="2"/>')
    held = report.family.zone.layers(p.n_layers) if report.family.zone else []
    if held:
        x, end = held[0] * width + 2, (held[-1] + 1) * width - 2
        line = f'x1="{x:.1f}" x2="{end:.1f}" y1="{y + _CELL + 2}" y2="{y + _CELL + 2}"'
        parts.append(f'<line {line} stroke="var(--ink)" stroke-width="2"/>')
    return parts


def _box(x: float, y: float, width: float, fill: str, told: str) -> str:
    place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_CELL}"'
    return f'<rect {place} {fill} stroke="var(--line)"><title>{told}</title></rect>'


def _short(value: float, width: float) -> str:
    """Two decimals, without the leading nought where cells are narrow."""
    text = f"{round(value, 2) + 0.0:.2f}"
    return text if width >= 34 or abs(value) >= 0.995 else text.replace("0.", ".", 1)


def _legend(y: float) -> list[str]:
    steps = [("cold", 1.0, "C 0 or less"), ("cold", 0.5, "0.25"), ("warm", 0.0, "0.5"), ("warm", 0.5, "0.75")]
    steps.append(("warm", 1.0, "1 or more"))
    parts, x = [], 0.0
    for hue, share, text in steps:
        fill = f'fill="var(--{hue})" fill-opacity="{share * _STRONGEST:.2f}"'
        parts.append(f'<rect x="{x + 1}" y="{y}" width="16" height="16" {fill} stroke="var(--line)"/>')
        parts.append(f'<text x="{x + 22}" y="{y + 12}" fill="var(--ink)">{text}</text>')
        x += 34 + 7 * len(text)
    parts.append(f'<rect x="{x + 1}" y="{y}" width="16" height="16" fill="url(#unmeasured)" stroke="var(--line)"/>')
    parts.append(f'<text x="{x + 22}" y="{y + 12}" fill="var(--ink)">not measured</text>')
    frame = f'x="{x + 116}" y="{y + 1}" width="14" height="14" fill="none" stroke="var(--ink)" stroke-width="2"'
    parts.append(f'<rect {frame}/><text x="{x + 136}" y="{y + 12}" fill="var(--ink)">best layer</text>')
    line = f'x1="{x + 208}" x2="{x + 224}" y1="{y + 8}" y2="{y + 8}" stroke="var(--ink)" stroke-width="2"'
    parts.append(f'<line {line}/><text x="{x + 230}" y="{y + 12}" fill="var(--ink)">best zone</text>')
    return parts


def heat_data(report: "FamilyReport", letters: list[str]) -> Data:
    """What `heat_map` shows."""
    rows = []
    for letter, p in zip(letters, [*report.profiles, *report.predicted], strict=True):
        for k, depth in zip(p.layers, p.depths, strict=True):
            low, high = p.ends.get(k, (None, None))
            kind = "predicted" if p.predicted else "measured"
            rows.append((f"{letter} {p.model}", p.task, k, float(depth), p.values[k], low, high, kind))
    return Data(("policy", "task", "layer", "relative depth", "C", "low", "high", "kind"), rows)


def curve_plot(report: "FamilyReport") -> str:
    """The curve through all profiles with its interval, every measured layer as a point, the best zone shaded."""
    family = report.family
    figure, axes = new_figure(7.2, 3.2)
    if family.zone:
        axes.axvspan(family.zone.start, family.zone.end, color=SOFT, alpha=0.35, linewidth=0)
        top = axes.get_xaxis_transform()
        centre = (family.zone.start + family.zone.end) / 2
        axes.text(centre, 0.99, "best zone", transform=top, color=INK, fontsize=8, ha="center", va="top")
    marks = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")
    for i, member in enumerate(family.members):
        for p in (p for p in family.profiles if p.member == member):
            axes.plot(p.depths, p.contributions, marks[i % len(marks)], color=INK, markersize=3.5, alpha=0.45)
    depth, value, low, high = zip(*family.curve, strict=True)
    axes.plot(depth, value, color=ACCENT, linewidth=2.4)
    if low[0] is not None:
        for ends in (low, high):
            axes.plot(depth, ends, color=ACCENT, linewidth=1.1, linestyle="--")
    axes.set(xlabel="relative depth", ylabel="contribution C")
    if axes.get_ylim()[0] < LOWEST:  # a few collapsed layers must not flatten the rest
        axes.set_ylim(bottom=LOWEST)
    return as_svg(figure, "Contribution over relative depth, all profiles")


def curve_data(report: "FamilyReport") -> Data:
    """The curve that `curve_plot` shows; its points are those of the heat map."""
    return Data(("relative depth", "C", "low", "high"), report.family.curve)


def rules_plot(report: "FamilyReport", names: dict[str, str]) -> str:
    """C that each rule loses on policies left out, with its interval; the curve's pick in colour."""
    rules = list(report.family.rules.items())[::-1]
    figure, axes = new_figure(7.2, 0.5 + 0.36 * len(rules))
    for y, (rule, mean) in enumerate(rules):
        own = rule == "family"
        colour = ACCENT if own else INK
        if mean.low is not None:
            axes.plot([mean.low, mean.high], [y, y], color=colour, linewidth=2.4 if own else 1.2)
        axes.plot(mean.value, y, "D" if own else "o", color=colour, markersize=7 if own else 4.5)
    axes.set_yticks(range(len(rules)), [names[rule] for rule, _ in rules])
    axes.set_ylim(-0.6, len(rules) - 0.4)
    axes.set_xlabel("C lost against the best layer")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    return as_svg(figure, "C lost by each rule on policies left out")
