"""How well scores of layers agree with their measured contributions."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr

_SHIFTS = 2000


def spearman(scores: np.ndarray, truth: np.ndarray) -> float:
    """Spearman correlation of (L,) with (L,); 0 where either is constant, since it then orders nothing."""
    return 0.0 if np.ptp(scores) == 0 or np.ptp(truth) == 0 else float(spearmanr(scores, truth).statistic)


def kendall(scores: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b; 0 where either is constant."""
    return 0.0 if np.ptp(scores) == 0 or np.ptp(truth) == 0 else float(kendalltau(scores, truth).statistic)


def without_depth(values: np.ndarray) -> np.ndarray:
    """What a quadratic in depth leaves of (L,)."""
    depth = np.linspace(-1, 1, len(values))
    left = values - np.polyval(np.polyfit(depth, values, 2), depth)
    return np.where(np.abs(left) < 1e-9 * max(1e-300, np.abs(values).max()), 0.0, left)


def depth_residual(scores: np.ndarray, truth: np.ndarray) -> float:
    """Spearman correlation of what a quadratic in depth leaves of both."""
    return spearman(without_depth(scores), without_depth(truth))


def circular_shift_p(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], groups: Sequence[str] | None = None, seed: int = 0
) -> float:
    """Chance of a mean depth residual as large as that of `pairs` (scores, truth) if positions were arbitrary.

    The null shifts each pair's residual scores by a random number of layers (not 0) around the stack, which keeps the
    likeness of neighbours. Pairs of one group (a policy) are shifted alike, since their probes and truths are alike.
    """
    rng = np.random.default_rng(seed)
    left = [(without_depth(scores), without_depth(truth)) for scores, truth in pairs]
    by_shift = [[spearman(np.roll(s, k), t) for k in range(len(s))] for s, t in left]
    seen = np.mean([values[0] for values in by_shift])
    groups = list(range(len(pairs))) if groups is None else list(groups)
    drawn = {group: rng.random(_SHIFTS) for group in dict.fromkeys(groups)}
    shifted = [
        np.array(values)[1 + (drawn[group] * (len(values) - 1)).astype(int)]
        for group, values in zip(groups, by_shift, strict=True)
    ]
    null = np.mean(shifted, axis=0)
    return float((1 + (null >= seen).sum()) / (1 + _SHIFTS))


def regret(scores: np.ndarray, truth: np.ndarray, top: int = 1) -> float:
    """How much less the best of the `top` highest scores brings than the best layer; ties go to the later layer."""
    order = sorted(range(len(scores)), key=lambda k: (-round(float(scores[k]), 9), -k))
    return float(truth.max() - max(truth[k] for k in order[:top]))


def expected_regret(truth: np.ndarray, top: int = 1) -> float:
    """Mean regret of picking `top` layers at random."""
    ordered, n = np.sort(truth)[::-1], len(truth)
    chance, left = np.zeros(n), 1.0
    for i in range(n):  # the best of the picked is the i-th best layer
        take = min(1.0, top / (n - i))
        chance[i], left = left * take, left * (1 - take)
    return float(truth.max() - chance @ ordered)


def seed_ceiling(by_seed: np.ndarray) -> float:
    """Highest Spearman correlation to be expected with the mean over seeds of (S, L), by Spearman and Brown.

    r between seeds makes the mean of S seeds reliable to S r / (1 + (S - 1) r); the root of that bounds the correlation
    of anything with it. 0 where seeds do not agree.
    """
    n = len(by_seed)
    found = [spearman(by_seed[i], by_seed[j]) for i in range(n) for j in range(i)]
    return mean_reliability(float(np.mean(found)), n) ** 0.5


def mean_reliability(r: float, n: int) -> float:
    """Reliability of the mean of `n` measurements that correlate by `r` (Spearman and Brown), 0 to 1."""
    r = max(0.0, r)
    return n * r / (1 + (n - 1) * r)
