"""How good the predictor is on families, and on tasks, that it has not seen, beside every baseline.

    python -m calibration.evaluation [--to DIR]

For each family (task) the candidate is chosen and fitted on the others alone (`calibration.predictor`), and the sweeps
of that family (task) are predicted. Writes ``evaluation.json`` with every figure and ``evaluation.html`` with plots.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

from calibration import agreement
from calibration.baselines import (
    Baseline,
    other_task_scores,
    position_baselines,
    probe_baselines,
    probe_share,
    race_share,
    reward_baseline,
    sampled_warmup_baseline,
    uni_layer_baseline,
)
from calibration.contribution import LEVEL
from calibration.corpus.records import SMALL_POLICIES, Pair, chosen_on, load_corpus
from calibration.corpus.replay import replay_race
from calibration.examples import Example, make_examples, published_examples
from calibration.features import POSITION, feature_names
from calibration.fitting import choose_candidate
from calibration.prediction import Prediction
from calibration.predictor import Predictor
from calibration.race import CALIBRATED, HALVED_RACE
from calibration.reliability import split_half
from probes.registry import DECODINGS, EFFORTS

RULES = CALIBRATED
ALONE = "warm-ups alone"
_DRAWS = 2000


@dataclass(frozen=True)
class Case:
    """One sweep with what a predictor that has not seen its family (or task) says of it."""

    pair: Pair
    example: Example
    prediction: Prediction
    candidate: str


def left_out(
    pairs: dict[str, Pair],
    examples: Sequence[Example],
    names: Sequence[str],
    effort: str,
    decoding: str,
    unit: Callable[[Example], str],
) -> list[Case]:
    """Every example predicted by a predictor that was chosen and fitted without those of its `unit`.

    Published sweeps are fitted on, but not where a family of Qwen is left out.
    """
    cases = []
    for name in sorted({unit(example) for example in examples}):
        published = [] if name.startswith("qwen") else published_examples(effort, decoding)
        others = [example for example in examples if unit(example) != name] + published
        candidate, _ = choose_candidate(others)
        predictor = Predictor(effort, decoding, candidate, names, others)
        for example in examples:
            if unit(example) == name:
                cases.append(Case(pairs[example.name], example, predictor.predict(example.x, example.idle), candidate))
    return cases


def judge(scores: np.ndarray, example: Example) -> dict[str, float]:
    """Every figure of one method on one sweep. Regret in C, and in points of accuracy."""
    truth = example.contribution
    first, third = agreement.regret(scores, truth), agreement.regret(scores, truth, top=3)
    return {
        "spearman": agreement.spearman(scores, truth),
        "kendall": agreement.kendall(scores, truth),
        "depth_residual": agreement.depth_residual(scores, truth),
        "regret": first,
        "regret_top3": third,
        "points": 100 * first * example.gain,
    }


def judge_prediction(case: Case) -> dict[str, float]:
    """Every figure of a prediction: of its order, and beyond depth of its values, since ranks bend a curve."""
    found = judge(case.prediction.placed, case.example)
    residual = agreement.depth_residual(case.prediction.advantage, case.example.contribution)
    return {**found, "depth_residual": residual}


def judge_random(example: Example) -> dict[str, float]:
    """The figures of a layer picked at random, in expectation."""
    first = agreement.expected_regret(example.contribution)
    third = agreement.expected_regret(example.contribution, top=3)
    flat = dict.fromkeys(("spearman", "kendall", "depth_residual"), 0.0)
    return {**flat, "regret": first, "regret_top3": third, "points": 100 * first * example.gain}


def with_interval(values: Sequence[float], members: Sequence[str]) -> dict[str, float]:
    """Mean with the ends of its 90 % interval by drawing whole policies with replacement."""
    values, rng = np.array(values), np.random.default_rng(0)
    names, index = np.unique(members, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    drawn = rng.integers(len(names), size=(_DRAWS, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def evaluate(
    pairs: Sequence[Pair],
    say: Callable[[str], None] = lambda line: None,
    decodings: Sequence[str] = DECODINGS,
    workers: int = 1,
) -> dict[str, Any]:
    """All figures, by decoding: ``methods`` with their figures and cost, ``predictors`` by effort and what was left
    out, ``paired`` differences to the best baseline, ``ceiling``, and the methods again on sweeps ``measured_later``
    than the rules were chosen. Cost: some minutes a decoding for 60 pairs."""
    by_name = {pair.name: pair for pair in pairs}
    found: dict[str, Any] = {"pairs": len(pairs), "whole": sum(pair.is_whole for pair in pairs)}
    found["rules"] = {"rungs": list(RULES.rungs), "prompts": RULES.prompts, "keep": RULES.keep}
    found["published"] = on_published(pairs)
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            parts = list(pool.map(_under, decodings, repeat(pairs), repeat(by_name)))
    else:
        parts = [_under(decoding, pairs, by_name, say) for decoding in decodings]
    return found | dict(zip(decodings, parts, strict=True))


def _under(
    decoding: str, pairs: Sequence[Pair], by_name: dict[str, Pair], say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    whole = [pair for pair in pairs if pair.is_whole]
    static = make_examples(whole, "static", decoding)
    members = [e.member for e in static]
    rows: dict[str, dict[str, dict[str, float]]] = {}  # method -> sweep -> figures
    costs: dict[str, list[float]] = {}

    def add(method: str, example: Example, figures: dict[str, float], cost: float) -> None:
        rows.setdefault(method, {})[example.name] = figures
        costs.setdefault(method, []).append(cost)

    measured = [(by_name[e.name], e.contribution) for e in static]
    baselines = [*position_baselines(), *probe_baselines(), uni_layer_baseline(), reward_baseline()]
    baselines.append(sampled_warmup_baseline())
    for example in static:
        pair = by_name[example.name]
        add("random layer", example, judge_random(example), 0.0)
        for baseline in baselines:
            _add_baseline(baseline, pair, decoding, example, add)
        for name, rules in ((ALONE, RULES), (f"{ALONE}, halved after 4 steps", HALVED_RACE)):
            race = replay_race(pair, decoding, rules)
            order = race.order()
            places = [-order.index(k) if k in order else -len(order) for k in range(pair.n_layers)]
            add(name, example, judge(np.array(places, float), example), race_share(pair, race, rules, decoding))
        elsewhere = other_task_scores(pair, measured)
        if elsewhere is not None:
            add("another task's ranking", example, judge(elsewhere, example), 1.0)
    predictors: dict[str, Any] = {}
    for effort in EFFORTS:
        examples = make_examples(whole, effort, decoding, RULES)
        names = feature_names(effort)
        predictors[effort] = {}
        for what, unit in (("family", lambda e: e.family), ("task", lambda e: e.task)):
            cases = left_out(by_name, examples, names, effort, decoding, unit)
            say(f"{decoding}, {effort}, {what} left out: {len(cases)} sweeps")
            predictors[effort][what] = judge_cases(cases)
            if what == "family":
                for case in cases:
                    cost = _effort_share(case.pair, effort, decoding)
                    add(f"advisor, {effort}", case.example, judge_prediction(case), cost)
    curve = with_position_alone(static)
    for family in sorted({e.family for e in curve}):
        published = [] if family.startswith("qwen") else published_examples("static", decoding)
        others = [e for e in curve if e.family != family] + with_position_alone(published)
        predictor = Predictor("static", decoding, "depth curve", POSITION, others)
        for example in (e for e in curve if e.family == family):
            add("depth curve of other families", example, judge(predictor.advantage(example.x), example), 0.0)
    by_example = {e.name: e for e in static}
    methods = {
        name: {
            "n": len(by_pair),
            "cost": float(np.nanmean(costs[name])),
            **_means(by_pair, by_example),
            "by_sweep": {p: round(f["regret"], 4) for p, f in by_pair.items()},
        }
        for name, by_pair in rows.items()
    }
    later = by_example.keys() - chosen_on()
    rows_later = {name: {p: f for p, f in by_pair.items() if p in later} for name, by_pair in rows.items()}
    return {
        "sweeps": len(static),
        "policies": len(set(members)),
        "families": sorted({e.family for e in static}),
        "tasks": sorted({e.task for e in static}),
        "methods": methods,
        "measured_later": {
            "sweeps": len(later),
            "policies": len({by_example[p].member for p in later}),
            "methods": {name: _means(by_pair, by_example) for name, by_pair in rows_later.items() if by_pair},
        },
        "predictors": predictors,
        "paired": _paired(rows, by_example),
        "ceiling": {
            "spearman": with_interval([agreement.seed_ceiling(e.by_seed) for e in static], members),
            "between_seeds": with_interval([agreement.spearman(*e.by_seed[:2]) for e in static], members),
            "split_half": with_interval([split_half(by_name[e.name], decoding) for e in static], members),
            "regret_floor": with_interval([e.floor for e in static], members),
        },
    }


def _means(by_pair: dict[str, dict[str, float]], examples: dict[str, Example]) -> dict[str, dict[str, float]]:
    """Mean of every figure over sweeps, with its interval over policies."""
    members = [examples[p].member for p in by_pair]
    figures = next(iter(by_pair.values()))
    return {figure: with_interval([f[figure] for f in by_pair.values()], members) for figure in figures}


def with_position_alone(examples: Sequence[Example]) -> list[Example]:
    """The same examples with the features of position only."""
    return [replace(example, x=example.x[:, : len(POSITION)]) for example in examples]


def on_published(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How position, as fitted, does on the published sweeps: by the zoo alone, and by the zoo and the other models.

    Regret is over the layers that were measured.
    """
    zoo = with_position_alone(make_examples(pairs, "static", "greedy"))
    models = with_position_alone(published_examples("static", "greedy"))
    found: dict[str, Any] = {}
    for model in models:
        others = [other for other in models if other.name != model.name]
        layers = model.x[:, 0]  # relative depth, up to a constant
        scores = {
            "the zoo alone": Predictor("static", "greedy", "depth curve", POSITION, zoo).advantage(model.x),
            "the zoo and the other models": Predictor(
                "static", "greedy", "depth curve", POSITION, zoo + others
            ).advantage(model.x),
            "first measured layer": -layers,
            "nearest to the middle": -np.abs(layers - (layers.max() + layers.min()) / 2),
        }
        for name, values in scores.items():
            regret = agreement.regret(values, model.contribution)
            rho = agreement.spearman(values, model.contribution)
            found.setdefault(name, {})[model.member] = {"regret": round(regret, 4), "spearman": round(rho, 4)}
        chance = agreement.expected_regret(model.contribution)
        found.setdefault("random layer", {})[model.member] = {"regret": round(chance, 4), "spearman": 0.0}
    return found


def _add_baseline(baseline: Baseline, pair: Pair, decoding: str, example: Example, add: Callable) -> None:
    scores = baseline.scores(pair, decoding)
    if scores is not None:
        add(baseline.name, example, judge(scores, example), baseline.cost(pair))


def _effort_share(pair: Pair, effort: str, decoding: str) -> float:
    if effort == "static":
        return probe_share(pair, ("depth", "weights"), rollouts=False)
    race = race_share(pair, replay_race(pair, decoding, RULES), RULES, decoding) if effort == "warmup" else 0.0
    return probe_share(pair) + race


def judge_cases(cases: Sequence[Case]) -> dict[str, Any]:
    """Figures of one predictor on sweeps that it has not seen: agreement, intervals, chances."""
    members = [case.example.member for case in cases]
    figures = [judge_prediction(case) for case in cases]
    inside, wide, absolute = [], [], []
    for case in cases:
        truth, said = case.example.advantage, case.prediction
        inside.append(float(((said.advantage_low <= truth) & (truth <= said.advantage_high)).mean()))
        wide.append(float((said.advantage_high - said.advantage_low).mean()))
        whole = case.example.contribution
        absolute.append(float(((said.low <= whole) & (whole <= said.high)).mean()))
    p_best = np.concatenate([case.prediction.p_best for case in cases])
    best = np.concatenate([np.arange(case.example.n_layers) == case.example.contribution.argmax() for case in cases])
    pairs = [(case.prediction.advantage, case.example.contribution) for case in cases]
    candidates = [case.candidate for case in cases]
    return {
        **{name: with_interval([f[name] for f in figures], members) for name in figures[0]},
        "depth_residual_p": agreement.circular_shift_p(pairs, members),
        "coverage": with_interval(inside, members),
        "width": with_interval(wide, members),
        "contribution_coverage": with_interval(absolute, members),
        "candidates": {name: candidates.count(name) for name in sorted(set(candidates))},
        "p_best": reliability_table(p_best, best),
        "p_best_brier": float(np.mean((p_best - best) ** 2)),
        "p_best_brier_uniform": float(
            np.mean(
                np.concatenate(
                    [
                        (1 / c.example.n_layers - (np.arange(c.example.n_layers) == c.example.contribution.argmax()))
                        ** 2
                        for c in cases
                    ]
                )
            )
        ),
        "p_best_of_pick": with_interval([float(c.prediction.p_best[c.prediction.order[0]]) for c in cases], members),
        "pick_is_best": with_interval(
            [float(c.prediction.order[0] == c.example.contribution.argmax()) for c in cases], members
        ),
    }


def reliability_table(chance: np.ndarray, happened: np.ndarray) -> list[dict[str, float]]:
    """Predicted chances in bins with how often it happened."""
    edges = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0]
    bins = np.clip(np.digitize(chance, edges) - 1, 0, len(edges) - 2)
    return [
        {
            "said": float(chance[bins == b].mean()),
            "seen": float(happened[bins == b].mean()),
            "n": int((bins == b).sum()),
        }
        for b in range(len(edges) - 1)
        if (bins == b).any()
    ]


def _paired(rows: dict[str, dict[str, dict[str, float]]], examples: dict[str, Example]) -> dict[str, Any]:
    """By how much less C each effort loses than each baseline that is measured on every sweep, which of these is best,
    and than the warm-ups alone, which are our own."""
    own = [name for name in rows if name.startswith("advisor")]
    others = [name for name in rows if name not in own and len(rows[name]) == len(examples)]
    foreign = [name for name in others if not name.startswith(ALONE)]
    best = min(foreign, key=lambda name: np.mean([f["regret"] for f in rows[name].values()]))
    found: dict[str, Any] = {"best_baseline": best}
    for name in own:
        found[name] = {}
        for other in others:
            less = [rows[other][p]["regret"] - rows[name][p]["regret"] for p in rows[name]]
            found[name][other] = with_interval(less, [examples[p].member for p in rows[name]])
    return found


@click.command()
@click.option("--corpus", type=click.Path(exists=True, path_type=Path), default=SMALL_POLICIES, help="[default: ours]")
@click.option("--to", "folder", type=click.Path(path_type=Path), default=Path("tests/benchmarks/results"))
@click.option("--workers", default=2, show_default=True, help="Processes: one a decoding.")
def main(corpus: Path, folder: Path, workers: int) -> None:
    """Evaluate the predictor on the corpus and write the figures and the page."""
    from calibration.evaluation_page import page, table

    pairs = load_corpus([corpus])
    found = evaluate(pairs, click.echo, workers=workers)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.html").write_text(page(found), encoding="utf-8")
    click.echo(table(found))


if __name__ == "__main__":
    main()
