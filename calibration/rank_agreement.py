"""How far two measured profiles agree, and what one's best layer is worth on the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from math import atanh, tanh

import numpy as np
from scipy.stats import norm

from calibration.agreement import depth_residual, expected_regret, kendall, spearman
from calibration.contribution import LEVEL
from calibration.over_members import MemberMean, mean_over_members
from calibration.profiles import Profile
from probes.depth import depth_of

FEWEST_POINTS = 4  # below, a rank correlation has five values at most
_FEWEST_WITHOUT_DEPTH = 6  # a quadratic takes three

RELATIONS = {  # of two profiles: what changes from one to the other
    "repeat": "the same task, another checkpoint of one policy",
    "task": "another task, the same policy",
    "member": "another policy of the family, the same task",
    "member_and_task": "another policy of the family, another task",
    "family": "another family, the same task",
    "family_and_task": "another family, another task",
}


@dataclass(frozen=True)
class PairAgreement:
    """Rank agreement of two profiles over the ``n`` positions that both know.

    ``low`` and ``high`` are the ends of a 90 % interval that takes layers as independent, None below five positions.
    ``without_depth`` is the correlation of what a quadratic in depth leaves, None where fewer than six layers, or not
    all, are known. ``ceiling`` is what the agreement between seeds leaves room for, None where seeds were not compared.
    """

    a: Profile
    b: Profile
    relation: str
    n: int
    spearman: float
    kendall: float
    low: float | None
    high: float | None
    without_depth: float | None
    ceiling: float | None


@dataclass(frozen=True)
class Transfer:
    """The best layer of ``source`` taken over to ``target``: C lost against the best measured layer there.

    ``layer`` is the measured one at the nearest relative depth; ``middle`` and ``random`` are what the layer nearest
    to the middle and a random one lose.
    """

    source: Profile
    target: Profile
    relation: str
    layer: int
    regret: float
    middle: float
    random: float


@dataclass(frozen=True)
class Related:
    """All pairs of one relation: means with 90 % intervals over policies.

    ``better_than_random`` and ``better_than_middle`` are C that another profile's best layer loses less than a random
    one and the middle one.
    """

    relation: str
    spearman: MemberMean
    without_depth: MemberMean | None
    ceiling: MemberMean | None
    regret: MemberMean
    middle: MemberMean
    random: MemberMean
    better_than_random: MemberMean
    better_than_middle: MemberMean


def relation_of(a: Profile, b: Profile) -> str:
    """Which of `RELATIONS` holds between two profiles."""
    same_task = a.task == b.task
    if a.member == b.member:
        return "repeat" if same_task else "task"
    within = "member" if a.family == b.family else "family"
    return within if same_task else f"{within}_and_task"


def shared_positions(a: Profile, b: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of both, (n,) each, where both are known.

    Stacks of one length are compared layer by layer. Otherwise at the measured layers of the shorter stack, the longer
    one interpolated at the same relative depth.
    """
    short, long = (a, b) if a.n_layers <= b.n_layers else (b, a)
    pairs = []
    for k in short.layers:
        other = long.values.get(k) if a.n_layers == b.n_layers else long.at(depth_of(k, short.n_layers))
        if other is not None:
            pairs.append((short.values[k], other))
    x, y = np.array(pairs, dtype=float).reshape(-1, 2).T
    return (x, y) if short is a else (y, x)


def agreement_of(a: Profile, b: Profile) -> PairAgreement | None:
    """Rank agreement of two profiles; None where they share fewer than four positions."""
    x, y = shared_positions(a, b)
    n = len(x)
    if n < FEWEST_POINTS:
        return None
    rho = spearman(x, y)
    low, high = correlation_interval(rho, n) if n > FEWEST_POINTS else (None, None)
    evenly = n >= _FEWEST_WITHOUT_DEPTH and n == min(a.n_layers, b.n_layers)
    known = a.reliability is not None and b.reliability is not None
    ceiling = (a.reliability * b.reliability) ** 0.5 if known else None
    residual = depth_residual(x, y) if evenly else None
    return PairAgreement(a, b, relation_of(a, b), n, rho, kendall(x, y), low, high, residual, ceiling)


def correlation_interval(rho: float, n: int) -> tuple[float, float]:
    """90 % interval of a Spearman correlation over n > 4 independent positions (Bonett and Wright 2000).

    Misleads towards narrow, since neighbouring layers are alike.
    """
    most = 1 - 6 / (n * (n * n - 1))  # half a swap of neighbours from perfect order, where the interval is undefined
    clipped = max(-most, min(most, rho))
    half = norm.ppf((1 + LEVEL) / 2) * ((1 + clipped**2 / 2) / (n - 3)) ** 0.5
    return tanh(atanh(clipped) - half), tanh(atanh(clipped) + half)


def regret_at(profile: Profile, layer: int) -> float:
    """C that `layer` brings less than the best measured one."""
    return max(profile.values.values()) - profile.values[layer]


def middle_layer(profile: Profile) -> int:
    """The measured layer nearest to the middle one by position, L // 2."""
    return profile.nearest(depth_of(profile.n_layers // 2, profile.n_layers))


def transfer_of(source: Profile, target: Profile) -> Transfer:
    """What the best layer of `source` loses on `target`."""
    layer = target.nearest(depth_of(source.best, source.n_layers))
    middle, chance = regret_at(target, middle_layer(target)), expected_regret(target.contributions)
    return Transfer(source, target, relation_of(source, target), layer, regret_at(target, layer), middle, chance)


def agreements(profiles: Sequence[Profile]) -> list[PairAgreement]:
    """Every pair that shares enough positions."""
    found = (agreement_of(a, b) for a, b in combinations(profiles, 2))
    return [pair for pair in found if pair is not None]


def related(pairs: Iterable[PairAgreement]) -> list[Related]:
    """The pairs by relation, nearest relation first; best layers are taken over both ways."""
    by_relation: dict[str, list[PairAgreement]] = {}
    for pair in pairs:
        by_relation.setdefault(pair.relation, []).append(pair)
    return [_related(name, by_relation[name]) for name in RELATIONS if name in by_relation]


def _related(relation: str, pairs: list[PairAgreement]) -> Related:
    def mean(values: Sequence[float | None], of: Sequence[PairAgreement | Transfer]) -> MemberMean | None:
        known = [(value, one) for value, one in zip(values, of, strict=True) if value is not None]
        ends = [(o.a, o.b) if isinstance(o, PairAgreement) else (o.source, o.target) for _, o in known]
        return mean_over_members([value for value, _ in known], [(x.member, y.member) for x, y in ends])

    moved = [transfer_of(*ends) for pair in pairs for ends in permutations((pair.a, pair.b))]
    return Related(
        relation,
        spearman=_bounded(mean([p.spearman for p in pairs], pairs)),
        without_depth=_bounded(mean([p.without_depth for p in pairs], pairs)),
        ceiling=_bounded(mean([p.ceiling for p in pairs], pairs)),
        regret=mean([m.regret for m in moved], moved),
        middle=mean([m.middle for m in moved], moved),
        random=mean([m.random for m in moved], moved),
        better_than_random=mean([m.random - m.regret for m in moved], moved),
        better_than_middle=mean([m.middle - m.regret for m in moved], moved),
    )


def _bounded(mean: MemberMean | None) -> MemberMean | None:
    """A mean correlation whose interval stays within -1 and 1."""
    if mean is None or mean.low is None:
        return mean
    return replace(mean, low=max(-1.0, mean.low), high=min(1.0, mean.high))
