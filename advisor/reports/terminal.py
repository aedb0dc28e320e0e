"""A recommendation and a layer table as aligned text for the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advisor.reports import wording

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation
    from advisor.survey import Survey

_TOP = 10
_FIXED_WIDTH = 60  # of the columns before the probes'
_RACE_WIDTH = 28  # of those of warm-ups
_SHOWN = ("grad_norm", "grad_snr", "adam_gain", "block_influence", "spectral_snr", "tail_exponent", "fisher")


def print_recommendation(recommendation: "Recommendation", console: Console) -> None:
    """Verdict, the best layers with their evidence, baselines and cost."""
    rec = recommendation
    task = escape(f" on {rec.task['name']}") if rec.task else ""
    console.print(
        f"[bold]{escape(rec.model['name'])}[/bold]{task}, effort {rec.effort}, {rec.protocol['decoding']} decoding\n",
        highlight=False,
    )
    console.print(f"[bold]{wording.headline(rec)}[/bold]", highlight=False)
    console.print(rec.verdict.text + "\n", highlight=False)
    if rec.verdict.has_ranking:
        console.print(_ranking_table(rec, console.width))
        shown = min(_TOP, rec.table.n_layers)
        if shown < rec.table.n_layers:
            console.print(
                f"The best {shown} of {rec.table.n_layers}; the report has all.", style="dim", highlight=False
            )
        values = [layer["contribution"] for layer in rec.layers]
        console.print(
            f"\nContribution over depth  {wording.sparkline(values)}  (layer 0 to {len(values) - 1})", highlight=False
        )
    if rec.race is not None and rec.race.rungs:
        console.print()
        for i, line in enumerate(wording.race_lines(rec.race)):
            console.print(f"{'Race' if i == 0 else '':10} {line}", highlight=False)
        console.print(f"{'':10} {wording.race_summary(rec.race, rec.protocol['warmup'])}", highlight=False)
    if line := wording.reward_line(rec):
        console.print(f"Rollouts   {line}", highlight=False)
    if line := wording.predictor_line(rec):
        console.print(f"Predictor  {line}", highlight=False)
    for line in wording.known_lines(rec):
        console.print(f"Known      {escape(line)}", highlight=False)
    console.print(f"Baselines  {wording.baselines_line(rec)}", highlight=False)
    for name, reason in rec.table.failures.items():
        console.print(f"Not measured  {name}: {reason}", highlight=False, markup=False)
    console.print(f"Cost       {wording.cost_line(rec)}", highlight=False)


def _ranking_table(rec: "Recommendation", width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("layer", justify="right")
    table.add_column("contribution (90 %)", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=8)
    table.add_column("P(best)", justify="right", no_wrap=True)
    table.add_column("P(top 3)", justify="right", no_wrap=True)
    raced = rec.race is not None and bool(rec.race.rungs)
    if raced:
        table.add_column("gain after", justify="right", no_wrap=True)
        table.add_column("steps", justify="right", no_wrap=True)
    room = max(0, (width - _FIXED_WIDTH - raced * _RACE_WIDTH) // 12)
    shown = [name for name in _SHOWN if name in rec.table.columns][:room]
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True, min_width=min(len(name), 10))
    layers = rec.layers
    for k in rec.order[:_TOP]:
        layer = layers[k]
        table.add_row(
            str(layer["rank"]),
            str(k),
            wording.expected(layer),
            wording.bar(layer["contribution"], 8),
            f"{layer['p_best']:.0%}",
            f"{layer['p_top3']:.0%}",
            *(_warmup_cells(layer["warmup"]) if raced else ()),
            *(wording.number(layer["probes"][name]) for name in shown),
            style="bold" if k in rec.pick else "",
        )
    return table


def _warmup_cells(warmup: dict | None) -> tuple[str, str]:
    if warmup is None:
        return "", ""
    gain = wording.interval(warmup["gain"], warmup["gain_low"], warmup["gain_high"])
    return gain, str(warmup["steps"])


def print_table(survey: "Survey", console: Console) -> None:
    """Every column of the layer table, in as many blocks as the width needs."""
    columns = survey.table.columns
    units = {c.name: c.unit for p in survey.probes for c in p.columns}
    names, width = list(columns), console.width
    while names:
        block, used = [], 6
        while names and used + max(len(names[0]), 10) + 2 <= max(width, 20):
            block.append(names.pop(0))
            used += max(len(block[-1]), 10) + 2
        block = block or [names.pop(0)]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("layer", justify="right")
        for name in block:
            table.add_column(name, justify="right", no_wrap=True)
        for k in range(survey.table.n_layers):
            table.add_row(str(k), *(wording.number(columns[name][k]) for name in block))
        console.print(table)
        console.print(
            "units: " + "; ".join(f"{name}: {units[name]}" for name in block) + "\n", style="dim", highlight=False
        )
    for name, reason in survey.table.failures.items():
        console.print(f"Not measured  {name}: {reason}", highlight=False, markup=False)
