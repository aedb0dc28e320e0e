"""A verification or a sweep as aligned text, Markdown and HTML: one table for all three."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advisor.reports import plots, wording
from calibration.runs import FULL
from probes.registry import DECODINGS

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from calibration.contribution import Estimate

HEADINGS = ("arm", "role", "score", "gain", "C", "rate", "seeds", "s a run", "peak GiB")


def headline(found: "Contributions") -> str:
    """The verdict in a few words."""
    pick = next((arm for arm, roles in found.roles.items() if "pick" in roles), "")
    return {
        "confirmed": f"Confirmed: train {pick}.",
        "no_better_than_middle": f"No better than the middle layer: {pick} gains, but not more than layer "
        f"{found.model['n_layers'] // 2}.",
        "not_confirmed": f"Not confirmed: {pick}.",
        "no_headroom": "No headroom: full-parameter training shows no gain to have a share of."
        if found.sweep
        else "No headroom: the base policy is at its best already.",
        "broke_down": "Training broke down.",
        "measured": f"{len(found.roles)} arms measured.",
    }.get(found.verdict.kind, "Nothing was trained.")


def title(found: "Contributions") -> str:
    what = "Verification" if found.kind == "verification" else "Sweep"
    return f"{what}: {found.model['name']} on {found.task['name']}"


def table_rows(found: "Contributions", decoding: str) -> list[tuple[str, ...]]:
    """One row an arm under `HEADINGS`, the base policy first."""
    scores = found.scores(decoding)
    rows = [("base", "", _interval(scores.score(None)), *[""] * 6)]
    for arm, result in found.results(decoding).items():
        records = found.sweep.runs_of(result.layers)
        seconds = [r["seconds"] for r in records]
        peaks = [r["peak_memory_bytes"] for r in records if r["peak_memory_bytes"]]
        rate = result.learning_rate
        rows.append(
            (
                "all parameters" if arm == FULL else arm,
                ", ".join(role for role in found.roles[arm] if role not in ("layer", "full")),
                _interval(result.score),
                _interval(result.gain, signed=True),
                "1" if arm == FULL and result.contribution else _interval(result.contribution),
                "–" if rate is None else f"{rate:g}",
                f"{len(result.seeds)}" + (f" ({len(result.failures)} broke down)" if result.failures else ""),
                f"{sum(seconds) / len(seconds):.0f}" if seconds else "–",
                f"{max(peaks) / 2**30:.2f}" if peaks else "–",
            )
        )
    return rows


def curves(found: "Contributions") -> dict[str, list[list[float]]]:
    """Training rewards by step of each arm's runs at its chosen rate."""
    good = {arm: found.sweep.runs_of(r.layers) for arm, r in found.results().items()}
    return {
        "all parameters" if arm == FULL else arm: [
            [step["reward"] if step["reward"] is not None else float("nan") for step in run["curve"]]
            for run in runs
            if run["failed"] is None
        ]
        for arm, runs in good.items()
        if any(run["failed"] is None for run in runs)
    }


def protocol_line(found: "Contributions") -> str:
    """What the contributions depend on."""
    p, task = found.protocol, found.task
    rates = ", ".join(f"{rate:g}" for rate in p["learning_rates"])
    parts = (
        f"{p['algorithm']}, {p['steps']} steps of {p['prompts_per_step']} prompts × {p['group_size']} completions",
        f"at most {p['max_new_tokens']} tokens",
        f"rates tried {rates} (chosen on {task['validation_prompts']} validation prompts)",
        f"{len(p['seeds'])} seed" + "s" * (len(p["seeds"]) > 1),
        f"scored on {task['held_out_prompts']} held-out prompts",
        f"engine {p['engine']}",
    )
    return ", ".join(parts) + "."


def intervals_line(found: "Contributions") -> str:
    """How the intervals were made."""
    seeds = "seeds" if len(found.protocol["seeds"]) > 1 else "no seeds, since there is one: they are too narrow"
    return f"In brackets: 90 % intervals, a paired bootstrap over held-out prompts and {seeds}."


def print_contributions(found: "Contributions", console: Console) -> None:
    """Verdict, table under the chosen decoding, the other decoding in short, curves, cost."""
    console.print(f"[bold]{escape(title(found))}[/bold], {found.decoding} decoding\n", highlight=False)
    console.print(f"[bold]{headline(found)}[/bold]", highlight=False)
    console.print(found.verdict.text + "\n", highlight=False, markup=False)
    if found.sweep is not None:
        console.print(_terminal_table(found, console.width))
        console.print(intervals_line(found) + "\n", style="dim", highlight=False)
        for arm, runs in curves(found).items():
            mean = [sum(step) / len(step) for step in zip(*runs, strict=False)]
            mean = [value for value in mean if value == value]  # steps whose every completion was unscored
            if mean:
                spark = wording.sparkline(mean)
                console.print(f"{arm:16} reward {mean[0]:.2f} {spark} {mean[-1]:.2f}", highlight=False)
        console.print()
        for decoding in DECODINGS:
            agreement = found.sweep.seed_agreement(decoding)
            if agreement is not None:
                console.print(f"Seed agreement ({decoding}): Spearman {agreement:.2f}", highlight=False)
    console.print(f"Protocol  {protocol_line(found)}", highlight=False)
    if found.saved:
        console.print(f"Trained layer  {found.saved}", highlight=False, soft_wrap=True)
    console.print(f"Cost      {found.cost['seconds']:.0f} s", highlight=False)


def _terminal_table(found: "Contributions", width: int) -> Table:
    """The table with the role beside the arm; what a run cost is shown where there is room."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    chosen = [0, 2, 3, 4, 5] + ([6, 7, 8] if width >= 110 else [])
    for i in chosen:
        table.add_column(HEADINGS[i], justify="left" if i == 0 else "right", no_wrap=True)
    for row in table_rows(found, found.decoding):
        cells = [row[0] + (f" ({row[1]})" if row[1] else ""), *(row[i].replace(" to ", "…") for i in chosen[1:])]
        cells[1] = cells[1].split(" ")[0]  # the score alone: its interval is in the report
        table.add_row(*cells, style="bold" if "pick" in row[1] else "")
    return table


def markdown_contributions(found: "Contributions") -> str:
    """The whole report, under both decodings."""
    lines = [f"# {title(found)}", "", f"**{headline(found)}**", "", found.verdict.text, ""]
    lines += [f"Protocol ({found.decoding} decoding decides): {protocol_line(found)}", ""]
    if found.sweep:
        for decoding in _ordered(found):
            lines += [f"## Scored {_how(decoding)}", "", _row(HEADINGS), "| --- | --- " + "| ---: " * 7 + "|"]
            lines += [_row(row) for row in table_rows(found, decoding)] + [""]
            agreement = found.sweep.seed_agreement(decoding)
            lines += [] if agreement is None else [f"Spearman correlation between seeds: {agreement:.2f}.", ""]
        lines += [intervals_line(found), ""]
        failed = [run for run in found.runs if run["failed"]]
        lines += [f"* {run['arm']}, seed {run['seed']}, rate {run['rate']:g}: {run['failed']}" for run in failed]
    if found.saved:
        file = f"trained/{found.saved.name}"
        lines += [f"Trained weights of the pick: `{file}`; `advisor.load_layers(model, file)` puts them in.", ""]
    return "\n".join([*lines, f"Cost: {found.cost['seconds']:.0f} s.", ""])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def html_contributions(found: "Contributions") -> str:
    """The whole report as one page that opens offline."""
    from advisor.reports.html import render

    pick = next((arm for arm, roles in found.roles.items() if "pick" in roles), None)
    tables, gain_plot, curves_plot, results, shown_curves = [], None, None, {}, {}
    if found.sweep:
        results = found.results()
        tables = [(_how(d), table_rows(found, d), found.sweep.seed_agreement(d)) for d in _ordered(found)]
        gain_plot = plots.contribution_plot(results, results[pick].layers if pick else None)
        shown_curves = curves(found)
        curves_plot = plots.curves_plot(shown_curves, pick)
    return render(
        "contributions.html.j2",
        found=found,
        title=title(found),
        headline=headline(found),
        protocol_line=protocol_line(found),
        intervals_line=intervals_line(found),
        headings=HEADINGS,
        tables=tables,
        gain_plot=gain_plot,
        gain_data=plots.contribution_data(results),
        curves_plot=curves_plot,
        curves_data=plots.curves_data(shown_curves),
        failures=[run for run in found.runs if run["failed"]],
    )


def _ordered(found: "Contributions") -> list[str]:
    """The decoding that decides first."""
    return sorted(DECODINGS, key=lambda decoding: decoding != found.decoding)


def _how(decoding: str) -> str:
    return {"greedy": "greedily", "sampled": "by sampling"}[decoding]


def _interval(estimate: "Estimate | None", signed: bool = False) -> str:
    if estimate is None:
        return "–"
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.2f} ({estimate.low:{sign}.2f} to {estimate.high:{sign}.2f})"
