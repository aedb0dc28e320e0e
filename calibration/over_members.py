"""Means with intervals where policies, not layers or sweeps, are what was drawn from the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from calibration.contribution import LEVEL, widening

FEWEST = 3  # members, below which the spread between them is not known
_DRAWS = 2000


@dataclass(frozen=True)
class MemberMean:
    """A mean over ``n`` values of ``members`` policies, with the ends of its 90 % interval (None below three)."""

    value: float
    low: float | None
    high: float | None
    n: int
    members: int

    @property
    def above_zero(self) -> bool:
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high is not None and self.high < 0


def mean_over_members(values: Sequence[float], members: Sequence[Sequence[str]]) -> MemberMean | None:
    """Mean of `values` by drawing whole policies with replacement; `members` are those that each value is of.

    A value of two policies (an agreement between them) counts as often as the product of their draws. Deviations are
    widened for few policies (`calibration.contribution.widening`, and Student's t over the normal). None without
    values. Coverage with 3 to 18 policies: `tests/calibration/test_over_members.py`.
    """
    if not len(values):
        return None
    found = np.array(values, dtype=float)
    mean, names = float(found.mean()), sorted({name for of in members for name in of})
    if len(names) < FEWEST:
        return MemberMean(mean, None, None, len(found), len(names))
    weights = np.ones((_DRAWS, len(found)))
    drawn = draw_members(len(names))
    for i, of in enumerate(members):
        for name in set(of):
            weights[:, i] *= drawn[:, names.index(name)]
    total = weights.sum(1)
    means = (weights[total > 0] @ found) / total[total > 0]
    tail = (1 - LEVEL) / 2
    low, high = mean + small_sample(len(names)) * (np.quantile(means, [tail, 1 - tail]) - mean)
    return MemberMean(mean, float(low), float(high), len(found), len(names))


def draw_members(n: int, draws: int = _DRAWS) -> np.ndarray:
    """How often each of n policies is drawn, (draws, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)


def small_sample(n: int) -> float:
    """Factor on bootstrapped deviations of a mean of n policies."""
    return widening(n) * float(t.ppf((1 + LEVEL) / 2, n - 1) / norm.ppf((1 + LEVEL) / 2))
