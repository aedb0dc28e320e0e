"""From scores to contributions with intervals: a paired bootstrap over held-out prompts and over seeds.

C = (S_arm - S_base) / (S_full - S_base), each S a mean over held-out prompts and seeds (arXiv 2607.01232). All arms
answer the same prompts and train on the same seeds, so both are drawn jointly for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.stats import norm

from probes.errors import RunError

LEVEL = 0.9
_DRAWS = 4000
WORST_SPREAD = 0.5  # largest standard deviation of a reward from 0 to 1


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 90 % interval."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0


class Scores:
    """Scores of the base policy (n,) and of trained arms, by seed (n,), with joint bootstrap draws of their means.

    Prompts that any arm or the base left unscored (NaN) are dropped for all. Every arm is drawn with the same prompts
    and seeds, an arm that lacks a seed with those that it has. Drawing S seeds out of S understates their spread, so
    deviations between seeds are widened by sqrt(S / (S - 1)); with one seed they are unknown, and intervals cover
    prompts alone. Measured coverage of the 90 % intervals: `tests/benchmarks/intervals.py`. Cost: 4000 draws,
    milliseconds for hundreds of prompts.
    """

    def __init__(self, base: np.ndarray, arms: Mapping[str, Mapping[int, np.ndarray]], seed: int = 0) -> None:
        scored = ~np.isnan(base)
        for by_seed in arms.values():
            for scores in by_seed.values():
                scored &= ~np.isnan(scores)
        self.n_prompts = int(scored.sum())
        if not self.n_prompts:
            raise RunError("The reward gave None on every held-out prompt in some run, so no score can be compared.")
        self.base = base[scored]
        self.arms = {name: np.array([scores[scored] for scores in by_seed.values()]) for name, by_seed in arms.items()}
        self._seeds = {name: list(by_seed) for name, by_seed in arms.items()}
        self._seed = seed
        self._base_draws, self._draws = self._draw()

    def score(self, arm: str | None) -> Estimate:
        """Mean score of an arm, or of the base where None."""
        if arm is None:
            return _estimate(float(self.base.mean()), self._base_draws)
        return _estimate(float(self.arms[arm].mean()), self._draws[arm])

    def gain(self, arm: str) -> Estimate:
        """Score of the arm minus that of the base."""
        return _estimate(float(self.arms[arm].mean() - self.base.mean()), self._draws[arm] - self._base_draws)

    def difference(self, arm: str, other: str) -> Estimate:
        """Score of one arm minus that of another."""
        value = float(self.arms[arm].mean() - self.arms[other].mean())
        return _estimate(value, self._draws[arm] - self._draws[other])

    def regret_of_best(self, arms: Sequence[str]) -> float:
        """Score that the best of `arms` would lose, on average, if it were picked and all of them measured again."""
        best = int(np.argmax([self.arms[arm].mean() for arm in arms]))
        draws = np.stack([self._draws[arm] for arm in arms], axis=1)
        return float((draws.max(1) - draws[:, best]).mean())

    def contribution(self, arm: str, full: str) -> Estimate | None:
        """The share of the full arm's gain that the arm brings; None where that gain is not shown to be above 0."""
        if not self.gain(full).above_zero:
            return None
        value = (self.arms[arm].mean() - self.base.mean()) / (self.arms[full].mean() - self.base.mean())
        gained = self._draws[full] - self._base_draws
        sound = gained > 0  # the few others would turn the sign
        return _estimate(float(value), (self._draws[arm] - self._base_draws)[sound] / gained[sound])

    def _draw(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rng = np.random.default_rng(self._seed)
        n = self.n_prompts
        share = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS) / n  # (draws, n)
        seeds = sorted({seed for own in self._seeds.values() for seed in own})
        picked = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=_DRAWS) if seeds else None
        draws = {}
        for name, scores in self.arms.items():
            by_seed = share @ scores.T  # (draws, S)
            weight = picked[:, [seeds.index(seed) for seed in self._seeds[name]]].astype(float)
            weight[weight.sum(1) == 0] = 1.0  # none of its seeds was drawn: take all of them
            mean = by_seed.mean(1)
            drawn = (weight * by_seed).sum(1) / weight.sum(1)
            draws[name] = mean + widening(len(scores)) * (drawn - mean)
        return share @ self.base, draws


def mean_interval(values: np.ndarray) -> Estimate:
    """Mean of paired values (n,) over prompts with its 90 % interval by the normal approximation."""
    mean = float(values.mean())
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")
    half = float(norm.ppf((1 + LEVEL) / 2)) * error
    return Estimate(mean, mean - half, mean + half)


def widening(n_seeds: int) -> float:
    """Factor on the deviations of bootstrapped seed means that makes their variance unbiased."""
    return (n_seeds / (n_seeds - 1)) ** 0.5 if n_seeds > 1 else 1.0


def prompts_needed(width: float, spread: float = WORST_SPREAD) -> int:
    """Held-out prompts for a 90 % interval of a mean score of this full width, `spread` the rewards' deviation."""
    return ceil((2 * norm.ppf((1 + LEVEL) / 2) * spread / width) ** 2)


def interval_width(n_prompts: int, spread: float = WORST_SPREAD) -> float:
    """Full width of the 90 % interval of a mean score over so many prompts."""
    return float(2 * norm.ppf((1 + LEVEL) / 2) * spread / n_prompts**0.5)


def _estimate(value: float, draws: np.ndarray) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
