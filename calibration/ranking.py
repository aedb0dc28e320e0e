"""The ranking that is used while no predictor is fitted: ranks of the depth prior and the probes, averaged.

It is called *uncalibrated* wherever it is shown: the score orders layers and is no contribution, and there is no
interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from calibration.depth_prior import depth_prior
from probes.registry import Probe
from probes.table import LayerTable, varies

# Position is the only signal with published support, so it weighs as much as all probes together.
PRIOR_WEIGHT = 0.5
_TIE = 1e-9


@dataclass(frozen=True)
class Ranking:
    """``score`` (L,) from 0 to 1, its parts ``prior`` and ``probes`` (None without a vote), ``order`` best first."""

    score: np.ndarray
    prior: np.ndarray
    probes: np.ndarray | None
    order: list[int]

    def rank(self, k: int) -> int:
        """1 for the best layer."""
        return self.order.index(k) + 1


def rank_layers(table: LayerTable, probes: list[Probe], decoding: str) -> Ranking:
    """Average the ranks: half the depth prior, half the probes, each probe with one vote however many columns it has.

    Columns that do not tell layers apart, or have no vote under this decoding, are left out. Ties go to the later
    layer, which is cheaper to train.
    """
    prior = ranks(depth_prior(table.n_layers, decoding))
    votes = [vote for p in probes if (vote := _vote(p, table, decoding)) is not None]
    measured = np.mean(votes, axis=0) if votes else None
    score = prior if measured is None else PRIOR_WEIGHT * prior + (1 - PRIOR_WEIGHT) * measured
    order = sorted(range(table.n_layers), key=lambda k: (-round(score[k] / _TIE), -k))
    return Ranking(score, prior, measured, order)


def raced_first(ranking: Ranking, order: Sequence[int]) -> Ranking:
    """The ranking with the layers of a race in front, in their order; those that did not take part keep theirs."""
    rest = [k for k in ranking.order if k not in set(order)]
    return replace(ranking, order=[*order, *rest])


def ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks scaled to 0 (smallest) .. 1 (largest), (L,); 0.5 for a single layer."""
    return (rankdata(values) - 1) / (len(values) - 1) if len(values) > 1 else np.full(1, 0.5)


def _vote(probe: Probe, table: LayerTable, decoding: str) -> np.ndarray | None:
    columns = [
        ranks(column.vote(decoding) * table.columns[column.name])
        for column in probe.columns
        if column.vote(decoding) and column.name in table.columns and varies(table.columns[column.name])
    ]
    return np.mean(columns, axis=0) if columns else None
