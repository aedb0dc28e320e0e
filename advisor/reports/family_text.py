"""A family report as text: the Markdown file, and the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from advisor.reports.family import (
    RULES,
    SHORT,
    advice_line,
    by_kind,
    differences_line,
    headline,
    letters,
    profiles_table,
    published_lines,
    relations_table,
    rules_table,
    sources_line,
    title,
    zone_line,
)
from calibration.families import told
from probes.depth import depth_of

if TYPE_CHECKING:
    from advisor.family import FamilyReport
    from calibration.profiles import Profile

_BINS = 10
_LEVELS = "▁▂▃▄▅▆▇█"


def markdown_family(report: "FamilyReport") -> str:
    """The whole report."""
    lines = [f"# {title(report)}", "", f"**{headline(report)}**", "", report.family.verdict.text, ""]
    lines += [sources_line(report), ""]
    lines += [line for line in (differences_line(report),) if line for line in (line + ".", "")]
    advice = advice_line(report)
    lines += ["## A member that was not measured", "", advice, ""] if advice else []
    lines += ["## Contribution over relative depth", "", "```", *heat_lines(report), "```", ""]
    for heading, texts in by_kind(report):
        lines += [f"## {heading}", "", *(f"* {text}" for text in texts), ""]
    zone = zone_line(report)
    lines += ["## Best zone", "", zone, ""] if zone else []
    if report.family.related:
        lines += ["## Rank agreement", "", *_table(*relations_table(report)), "", *published_lines(report), ""]
    if report.benchmarks:
        rows = [(b["model"], b["a"], b["b"], str(b["n"]), f"{b['spearman']:+.2f}") for b in report.benchmarks]
        lines += ["Benchmarks that score the same training runs:", ""]
        lines += [*_table(("policy", "benchmark", "and", "layers", "ρ"), rows), ""]
    if report.family.rules:
        lines += ["## Policies left out", "", *_table(*rules_table(report)), ""]
    lines += ["## Profiles", "", *_table(*profiles_table(report)), ""]
    if report.left_out:
        lines += ["## Left out", "", *(f"* {name}: {why}" for name, why in report.left_out.items()), ""]
    return "\n".join(lines)


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells).replace("\n", " ") + " |" for cells in (headings, ("---",) * len(headings), *rows)]


def heat_lines(report: "FamilyReport", width: int = 80) -> list[str]:
    """A heat map in text: a row a profile, ten columns of relative depth, each a block and C; ★ has the best layer."""
    room = width - 5 * _BINS - 2
    edges = "".join(f"{i / _BINS:<5.1f}" for i in range(_BINS))
    lines = [" " * (room + 2) + edges.rstrip()]
    for letter, p in zip(letters(report), [*report.profiles, *report.predicted], strict=True):
        task = f" · {p.task}"[: room // 2] + (" ?" if p.predicted else "")
        model = f"{letter} {p.model}"
        label = (model if len(model) + len(task) <= room else model[: room - len(task) - 1] + "…") + task
        lines.append(f"{label:{room}}  {''.join(_heat_cells(p)).rstrip()}")
    lines += ["", "C: ▁ 0 or less … █ 1 or more; ★ has the best layer; · not measured."]
    return [*lines, *(["?: predicted, not measured."] if report.predicted else [])]


def _heat_cells(p: "Profile") -> list[str]:
    """Mean C of the measured layers in each bin of depth, or that of the nearest where it is next to the bin."""
    cells = []
    bins = [min(_BINS - 1, int(d * _BINS + 1e-9)) for d in p.depths]
    for i in range(_BINS):
        held = [k for k, b in zip(p.layers, bins, strict=True) if b == i]
        if not held:
            nearest = p.nearest((i + 0.5) / _BINS)
            near = abs(depth_of(nearest, p.n_layers) - (i + 0.5) / _BINS) <= 0.5 * depth_of(1, p.n_layers)
            held = [nearest] if near else []
        if not held:
            cells.append("·    ")
            continue
        value = sum(p.values[k] for k in held) / len(held)
        level = "★" if p.best in held else _LEVELS[round(max(0.0, min(1.0, value)) * (len(_LEVELS) - 1))]
        value = round(value, 1) + 0.0
        number = f"{value:.1f}".replace("0.", ".") if abs(value) < 0.95 else f"{value:.1f}"
        cells.append(f"{level}{number if len(number) < 4 else f'{value:.0f}':<4}")
    return cells


def print_family(report: "FamilyReport", console: Console) -> None:
    """Verdict, heat map, agreement, rules and advice, within 80 columns or more."""

    def say(text: str, **look) -> None:
        console.print(text, highlight=False, markup=False, **look)

    say(title(report), style="bold")
    say(f"\n{headline(report)}", style="bold")
    say(report.family.verdict.text + "\n")
    say(sources_line(report), style="dim")
    differences = differences_line(report)
    if differences:
        say(differences + ".", style="dim")
    say("")
    for line in heat_lines(report, min(100, max(80, console.width))):
        console.print(line, highlight=False, markup=False, no_wrap=True, overflow="crop")
    if report.family.related:
        say("")
        console.print(_relations(report))
        say(
            "ρ: Spearman correlation of contributions. beyond: with depth taken out. ceiling: by the agreement of "
            "seeds. C lost by the other's best layer, a random and the middle one.",
            style="dim",
        )
    if report.family.rules:
        say("")
        console.print(_rules(report))
    for line in (*published_lines(report)[:1], zone_line(report), advice_line(report)):
        if line:
            say("\n" + line)
    if report.left_out:
        say(f"\n{len(report.left_out)} without a profile; the report says why.", style="dim")


def _columns(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table


def _relations(report: "FamilyReport") -> Table:
    names = ("pairs", "ρ", "beyond", "ceiling", "loses", "random", "middle")
    table = _columns(("from one to", "left"), *((name, "right") for name in names))
    table.padding = (0, 1, 0, 0)
    for r in report.family.related:
        rho = told(r.spearman).replace("(+", "(").replace(" to +", "…").replace(" to ", "…")
        beyond = f"{r.without_depth.value:+.2f}" if r.without_depth else "–"
        ceiling = f"{r.ceiling.value:.2f}" if r.ceiling else "–"
        lost = (f"{mean.value:.2f}" for mean in (r.regret, r.random, r.middle))
        table.add_row(SHORT[r.relation], str(r.spearman.n), rho, beyond, ceiling, *lost)
    return table


def _rules(report: "FamilyReport") -> Table:
    table = _columns(("on policies left out", "left"), ("C lost", "right"), ("the curve less by", "right"))
    for rule, mean in report.family.rules.items():
        beside = report.family.better_than(rule) if rule != "family" else None
        table.add_row(RULES[rule], told(mean, sign=False), told(beside) if beside else "")
    return table
