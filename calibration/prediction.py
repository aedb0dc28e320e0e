"""What is predicted of the layers of one policy, and the order that follows."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What is predicted of the layers of one policy, each (L,).

    ``advantage`` is the contribution over that of the policy's mean layer, with the ends of its 90 % interval;
    ``level`` the mean layer's expected contribution, give or take ``level_half``; ``p_best`` and ``p_top3`` chances
    that a sweep would find a layer best, or among its best three. ``unlike`` says what of the policy the corpus has not
    seen the like of; each such thing has widened the intervals. ``idle`` are layers whose warm-ups brought nothing,
    ``costs`` what a step of training each layer alone takes (None: the later, the cheaper).
    """

    advantage: np.ndarray
    advantage_low: np.ndarray
    advantage_high: np.ndarray
    level: float
    level_half: float
    p_best: np.ndarray
    p_top3: np.ndarray
    unlike: list[str] = field(default_factory=list)
    idle: frozenset[int] = frozenset()
    costs: np.ndarray | None = None

    @property
    def contribution(self) -> np.ndarray:
        """Expected C, (L,)."""
        return self.level + self.advantage

    @property
    def low(self) -> np.ndarray:
        """Lower end of the 90 % interval of C, (L,): that of the advantage and that of the level together."""
        return self.contribution - np.hypot(self.advantage - self.advantage_low, self.level_half)

    @property
    def high(self) -> np.ndarray:
        """Upper end, (L,)."""
        return self.contribution + np.hypot(self.advantage_high - self.advantage, self.level_half)

    def rank(self, k: int) -> int:
        """1 for the best layer."""
        return self.order.index(k) + 1

    @property
    def placed(self) -> np.ndarray:
        """A score of every layer, (L,), larger for an earlier place in `order`."""
        return -np.argsort(self.order).astype(float)

    @property
    def order(self) -> list[int]:
        """Layers, best first, idle ones last; of those equal to three decimals the cheaper one, then the later."""
        costs = np.zeros(len(self.advantage)) if self.costs is None else self.costs
        return sorted(
            range(len(self.advantage)),
            key=lambda k: (k in self.idle, -round(float(self.advantage[k]), 3), float(costs[k]), -k),
        )
