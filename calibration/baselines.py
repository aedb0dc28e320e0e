"""What simpler rules, and other tools, would have picked: a score of every layer, larger is better, for each rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.corpus.records import Pair
from calibration.corpus.replay import arm_of
from calibration.race import EXPECTED, Race, RaceRules
from probes.table import varies

REWARD_STEPS = 8  # of the training reward that stands for a short warm-up


@dataclass(frozen=True)
class Baseline:
    """``scores`` of a pair under a decoding, (L,), or None where it has none; ``cost`` as a share of the sweep."""

    name: str
    scores: Callable[[Pair, str], np.ndarray | None]
    cost: Callable[[Pair], float]


def position_baselines() -> list[Baseline]:
    """Rules that look at nothing: free."""
    rules = {
        "middle layer": lambda n: -np.abs(np.arange(n) - n // 2).astype(float),
        "first layer": lambda n: -np.arange(n).astype(float),
        "last layer": lambda n: np.arange(n).astype(float),
    }
    return [
        Baseline(name, lambda pair, decoding, rule=rule: rule(pair.n_layers), lambda pair: 0.0)
        for name, rule in rules.items()
    ]


_COLUMNS = {  # column of the layer table, probe that it is of
    "largest gradient norm (aletheia-lora)": ("grad_norm", "gradients"),
    "relative gradient norm (Auto-RGN)": ("relative_grad_norm", "gradients"),
    "Fisher": ("fisher", "gradients"),
    "Spectrum's signal-to-noise": ("spectral_snr", "weights"),
    "block influence": ("block_influence", "activations"),
}


def probe_baselines() -> list[Baseline]:
    """The largest value of one column, as published tools take it."""

    def column(name: str) -> Callable[[Pair, str], np.ndarray | None]:
        def scores(pair: Pair, decoding: str) -> np.ndarray | None:
            values = pair.table.columns.get(name)
            return values if values is not None and varies(values) else None

        return scores

    def cost(probe: str) -> Callable[[Pair], float]:
        return lambda pair: probe_share(pair, (probe,), rollouts=probe != "weights")

    return [Baseline(name, column(c), cost(probe)) for name, (c, probe) in _COLUMNS.items()]


def uni_layer_baseline() -> Baseline:
    """The Borda consensus of uni-layer's fast preset for language models, as recorded by `tests/benchmarks`."""

    def scores(pair: Pair, decoding: str) -> np.ndarray | None:
        found = (pair.others or {}).get("uni-layer")
        return np.array(found["scores"], dtype=float) if found else None

    return Baseline(
        "uni-layer consensus", scores, lambda pair: pair.others["uni-layer"]["seconds"] / sweep_seconds(pair)
    )


def reward_baseline() -> Baseline:
    """Training reward at the end of a short warm-up of every layer at every rate on its own completions."""

    def scores(pair: Pair, decoding: str) -> np.ndarray | None:
        first = pair.protocol.seed_numbers[0]
        best = np.full(pair.n_layers, -np.inf)
        for run in pair.runs.values():
            if run["layers"] and len(run["layers"]) == 1 and run["seed"] == first and run["failed"] is None:
                own = float(np.nanmean(np.array(run["rewards"][REWARD_STEPS // 2 : REWARD_STEPS], dtype=float)))
                best[run["layers"][0]] = max(best[run["layers"][0]], own)
        return best

    def cost(pair: Pair) -> float:
        first = pair.protocol.seed_numbers[0]
        runs = [r for r in pair.runs.values() if r["layers"] and len(r["layers"]) == 1 and r["seed"] == first]
        return sum(r["seconds"] for r in runs) * REWARD_STEPS / pair.protocol.training.steps / sweep_seconds(pair)

    return Baseline(f"training reward after {REWARD_STEPS} steps", scores, cost)


def sampled_warmup_baseline() -> Baseline:
    """Warm-ups of all layers scored by one sampled answer a prompt, whatever the decoding."""

    def scores(pair: Pair, decoding: str) -> np.ndarray | None:
        return _by_layer(pair, pair.warmup["rungs"][-1]["sampled_answers"])

    def cost(pair: Pair) -> float:
        seconds = pair.warmup["seconds"]
        return (seconds["training"] + seconds["sampled answers"]) / sweep_seconds(pair)

    return Baseline("warm-ups alone, by sampled answers", scores, cost)


def _by_layer(pair: Pair, scores: dict[str, float | None]) -> np.ndarray:
    """The best score of each layer over rates; one that has none is worst."""
    found = np.full(pair.n_layers, -np.inf)
    for arm, score in scores.items():
        layer, _ = arm_of(arm)
        found[layer] = max(found[layer], -np.inf if score is None else score)
    return np.where(np.isfinite(found), found, found[np.isfinite(found)].min() - 1)


def other_task_scores(pair: Pair, measured: Sequence[tuple[Pair, np.ndarray]]) -> np.ndarray | None:
    """Mean contribution of the layers on the other tasks that the same policy was measured on; None without any."""
    same = pair.head["policy"]["fingerprint"]
    found = [c for other, c in measured if other.head["policy"]["fingerprint"] == same and other.task != pair.task]
    return np.mean(found, axis=0) if found else None


def sweep_seconds(pair: Pair) -> float:
    """What the pair's own sweep took, full-parameter training included.

    NaN where sampled scores are samples: such a sweep was measured on another day than its warm-ups, and scored in a
    dearer way than the others.
    """
    if pair.head["sampled_scores"] != EXPECTED:
        return float("nan")
    singles = [run for run in pair.runs.values() if not run["layers"] or len(run["layers"]) == 1]
    return sum(run["seconds"] for run in singles)


def probe_share(pair: Pair, probes: Sequence[str] | None = None, rollouts: bool = True) -> float:
    """Cost of these probes (None: all) as a share of the sweep, with that of the rollouts they need."""
    seconds = pair.probes["seconds"]
    of_probes = {name: value for name, value in seconds.items() if name != "total"}
    sampling = seconds["total"] - sum(of_probes.values()) if rollouts else 0.0
    return (sampling + sum(of_probes[name] for name in probes or of_probes if name in of_probes)) / sweep_seconds(pair)


def race_share(pair: Pair, race: Race, rules: RaceRules, decoding: str) -> float:
    """Cost of a replayed race as a share of the sweep: its part of the recorded training and scoring."""
    seconds, recorded = pair.warmup["seconds"], pair.warmup["rungs"]
    arms = {arm_of(name) for rung in recorded for name in rung["scores"][decoding]}
    all_steps = len(arms) * recorded[-1]["step"]
    all_scored = sum(len(rung["scores"][decoding]) for rung in recorded)
    share = min(1.0, rules.prompts / len(recorded[0]["base"][decoding]))
    scoring = seconds[decoding] * share * sum(len(rung.standings) for rung in race.rungs) / all_scored
    known = seconds["known"] * share if race.scored_by == EXPECTED else 0.0
    return (known + seconds["training"] * race.arm_steps / all_steps + scoring) / sweep_seconds(pair)
