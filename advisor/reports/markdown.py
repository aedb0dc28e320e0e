"""The report as Markdown."""

from typing import TYPE_CHECKING

from advisor.reports import wording
from probes.table import depth_correlation

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation


def markdown_report(recommendation: "Recommendation") -> str:
    """The whole report: verdict, ranking, evidence, rollouts, cost."""
    rec = recommendation
    name = f"{rec.model['name']}" + (f" on {rec.task['name']}" if rec.task else "")
    lines = [f"# Which layer to train: {name}", "", f"**{wording.headline(rec)}**", "", rec.verdict.text, ""]
    lines += [
        f"Effort {rec.effort}, {rec.protocol['decoding']} decoding. Protocol: "
        + wording.protocol_line(rec.protocol)
        + ".",
        "",
    ]
    if line := wording.reward_line(rec):
        lines += ["## Rollouts", "", line, ""]
    if rec.verdict.has_ranking:
        lines += ["## Ranking", "", f"Predictor: {wording.predictor_line(rec)}.", ""]
        lines += [f"- Outside what it was fitted on: {what}." for what in rec.predicted.prediction.unlike]
        lines += ["", *_table(rec), ""]
    if rec.known:
        lines += ["## Known sweeps", "", *(f"- {line}" for line in wording.known_lines(rec)), ""]
    if rec.race is not None and rec.race.rungs:
        lines += ["## The race", "", wording.race_summary(rec.race, rec.protocol["warmup"]), "", *_race_table(rec), ""]
    lines += ["## Baselines", "", "| rule | layer |", "| --- | ---: |"]
    lines += [f"| {wording.BASELINE_NAMES[k]} | {v} |" for k, v in rec.baselines.items()]
    lines += ["| a random layer | any |", ""]
    lines += [
        "## Evidence",
        "",
        "The depth correlation (Spearman) says how far a column only repeats the depth of the layer.",
        "",
        "| column | depth correlation | unit | meaning |",
        "| --- | ---: | --- | --- |",
    ]
    for column, values in rec.table.columns.items():
        c = rec.columns[column]
        lines.append(f"| {column} | {wording.number(depth_correlation(values))} | {c.unit} | {c.meaning} |")
    for failed, reason in rec.table.failures.items():
        lines.append(f"| {failed} (probe) | | | not measured: {reason.removeprefix('not measured: ')} |")
    if rec.reward and rec.reward["examples"]:
        lines += ["", "## Examples", "", "| prompt | completion | reward |", "| --- | --- | ---: |"]
        lines += [
            f"| {_cell(e['prompt'])} | {_cell(e['completion'])} | {wording.number(e['reward'])} |"
            for e in rec.reward["examples"]
        ]
    lines += ["", "## Cost", "", wording.cost_line(rec), ""]
    return "\n".join(lines)


def _table(rec: "Recommendation") -> list[str]:
    names = list(rec.table.columns)
    counted = rec.step_costs is not None
    head = ["rank", "layer", "contribution (90 %)", "over the mean layer (90 %)", "P(best)", "P(top 3)"]
    head += [*(["step cost"] if counted else []), *names]
    lines = [f"| {' | '.join(head)} |", "| ---: " * len(head) + "|"]
    layers = rec.layers
    for k in rec.order:
        layer = layers[k]
        values = " | ".join(wording.number(layer["probes"][name]) for name in names)
        over = wording.interval(layer["advantage"], layer["advantage_low"], layer["advantage_high"])
        said = f"{wording.expected(layer)} | {over} | {layer['p_best']:.2f} | {layer['p_top3']:.2f}"
        said += f" | {layer['step_cost']:.0%}" if counted else ""
        lines.append(f"| {layer['rank']} | {k} | {said} | {values} |")
    return lines


def _race_table(rec: "Recommendation") -> list[str]:
    lines = ["| step | layer | rate | score | gain over base | behind the leader | |", "| ---: " * 6 + "| --- |"]
    for rung in rec.race.rungs:
        for s in rung.standings:
            gain, behind = (wording.interval(e.value, e.low, e.high) for e in (s.gain, s.to_leader))
            lines.append(
                f"| {rung.step} | {s.layer} | {s.rate:g} | {s.score:.3f} | {gain} | {behind} | {wording.OUT[s.out]} |"
            )
    return lines


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else value[-1]["content"]
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 120 else text[:119] + "…"
