"""What the measured profiles of a family say together: a curve over depth, and a layer for another member.

Everything that is claimed is judged on policies left out of what it was learnt on: the curve is fitted, and the best
zone (`calibration.zones`) chosen, on the other policies alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t

from calibration.agreement import expected_regret, spearman
from calibration.contribution import LEVEL
from calibration.depth_prior import depth_prior, fit_prior
from calibration.over_members import FEWEST, MemberMean, draw_members, mean_over_members, small_sample
from calibration.profiles import PUBLISHED, Profile
from calibration.rank_agreement import (
    FEWEST_POINTS,
    PairAgreement,
    Related,
    agreements,
    middle_layer,
    regret_at,
    related,
)
from calibration.zones import Zone, best_zone, choose_zone, inside
from probes.depth import relative_depth
from probes.errors import UsageError

_GRID = np.linspace(0, 1, 41)
_CURVE_DRAWS = 200
_FEWEST_TRIED = 3  # layers: of two, as a verification has them, one is the middle and the other was picked before


@dataclass(frozen=True)
class Trial:
    """One profile of a policy that was left out: the layer that the other policies' curve picks, and how it did.

    Regrets are C lost against the best measured layer. ``prior`` is that of the published depth profile, None where
    published sweeps are among the profiles; ``zone`` the mean regret of layers inside the others' best zone.
    """

    profile: Profile
    layer: int
    expected: float
    found: float
    spearman: float | None
    regret: float
    middle: float
    random: float
    prior: float | None
    zone: float | None


@dataclass(frozen=True)
class FamilyVerdict:
    """``kind``: "transfers", "no_better_than_middle", "does_not_transfer" or "too_few_members"; ``text`` says why."""

    kind: str
    text: str


@dataclass(frozen=True)
class Advice:
    """A layer for a member that was not measured.

    ``layer`` is the one to take; ``rule`` says whose it is: "family", or, where left-out policies do not show that the
    family's curve is better, the rule for one layer that lost least on them. ``family_layer`` is where the curve is
    highest, ``zone`` the layers of the best zone. ``contribution`` is what left-out policies found at the curve's pick,
    with the interval for one more policy (None below three). ``unlike`` says what is outside the measured range, None
    where nothing is.
    """

    n_layers: int
    layer: int
    rule: str
    family_layer: int
    zone: list[int]
    contribution: float
    low: float | None
    high: float | None
    unlike: str | None


@dataclass(frozen=True)
class Family:
    """Measured profiles under one decoding, and what is learnt of them."""

    profiles: list[Profile]
    decoding: str

    @property
    def members(self) -> list[str]:
        return list(dict.fromkeys(p.member for p in self.profiles))

    @cached_property
    def pairs(self) -> list[PairAgreement]:
        return agreements(self.profiles)

    @cached_property
    def related(self) -> list[Related]:
        return related(self.pairs)

    @cached_property
    def zone(self) -> Zone | None:
        return best_zone(self.profiles)

    @cached_property
    def curve(self) -> list[tuple[float, float, float | None, float | None]]:
        """Relative depth, C by the ridge spline through all profiles, and its 90 % interval over policies."""
        values = _predict(fit_curve(self.profiles), _GRID)
        low = high = np.full(len(_GRID), np.nan)
        n = len(self.members)
        if n >= FEWEST:
            drawn = []
            for counts in draw_members(n, _CURVE_DRAWS):
                chosen = [p for p in self.profiles for _ in range(counts[self.members.index(p.member)])]
                drawn.append(_predict(fit_curve(chosen), _GRID))
            ends = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
            low, high = values + small_sample(n) * (ends - values)
        return [
            (float(d), float(v), *((float(lo), float(hi)) if n >= FEWEST else (None, None)))
            for d, v, lo, hi in zip(_GRID, values, low, high, strict=True)
        ]

    @cached_property
    def trials(self) -> list[Trial]:
        """Profiles of three layers and more, judged by the policies other than their own; empty for one policy."""
        found = []
        for member in self.members if len(self.members) > 1 else []:
            others = [p for p in self.profiles if p.member != member]
            model, zone = fit_curve(others), choose_zone(others)
            own = [p for p in self.profiles if p.member == member and len(p.layers) >= _FEWEST_TRIED]
            found += [_try(p, model, zone, self._has_published) for p in own]
        return found

    @property
    def _has_published(self) -> bool:
        return any(p.source == PUBLISHED for p in self.profiles)

    def over_trials(self, figure: Callable[[Trial], float | None]) -> MemberMean | None:
        """Mean of a figure over the trials that have it, with its interval over policies."""
        known = [(value, trial.profile.member) for trial in self.trials if (value := figure(trial)) is not None]
        return mean_over_members([value for value, _ in known], [(member,) for _, member in known])

    @cached_property
    def rules(self) -> dict[str, MemberMean]:
        """Mean regret on left-out policies of every rule that needs no measurement of them, best first."""
        found = {
            "family": self.over_trials(lambda trial: trial.regret),
            "zone": self.over_trials(lambda trial: trial.zone),
            "middle": self.over_trials(lambda trial: trial.middle),
            "prior": self.over_trials(lambda trial: trial.prior),
            "random": self.over_trials(lambda trial: trial.random),
        }
        known = [(name, mean) for name, mean in found.items() if mean is not None]
        return dict(sorted(known, key=lambda item: item[1].value))

    def better_than(self, rule: str) -> MemberMean | None:
        """C that the family's pick loses less than another rule's on left-out policies; None without trials."""

        def difference(trial: Trial) -> float | None:
            other = getattr(trial, rule)
            return None if other is None else other - trial.regret

        return self.over_trials(difference)

    @cached_property
    def verdict(self) -> FamilyVerdict:
        """Whether the family's curve is shown to pick better layers for policies that it has not seen."""
        n = len(self.members)
        if n < FEWEST:
            few = "one policy" if n == 1 else "two policies"
            return FamilyVerdict(
                "too_few_members",
                f"These are sweeps of {few}: no interval can be had below three, so nothing is shown to transfer.",
            )
        over_random, over_middle = self.better_than("random"), self.better_than("middle")
        if not over_random.above_zero:
            return FamilyVerdict(
                "does_not_transfer",
                "On policies left out, the layer that the others' curve picks is not shown to lose less than a random "
                f"one: {told(over_random, sign=False)} C less.",
            )
        if not over_middle.above_zero:
            return FamilyVerdict(
                "no_better_than_middle",
                f"On policies left out, the others' curve picks layers that lose {told(over_random, sign=False)} C "
                "less than a random one, but they are not shown to lose less than the middle layer: "
                f"{told(over_middle, sign=False)} C less.",
            )
        return FamilyVerdict(
            "transfers",
            f"On policies left out, the others' curve picks layers that lose {told(over_random, sign=False)} C less "
            f"than a random one and {told(over_middle, sign=False)} C less than the middle layer.",
        )

    def advise(self, n_layers: int) -> Advice:
        """A layer for another member of so many layers. Raises `UsageError` for less than one layer."""
        if n_layers < 1:
            raise UsageError(f"A model of {n_layers} layers cannot be advised on: give at least 1.")
        expected = _predict(fit_curve(self.profiles), relative_depth(n_layers))
        own = _highest(expected)
        off = self.over_trials(lambda trial: trial.found - trial.expected)
        contribution, low, high = float(expected[own]), None, None
        if off is not None and off.members >= FEWEST:
            contribution += off.value
            half = _spread_of_one_more([(one.profile.member, one.found - one.expected) for one in self.trials])
            low, high = contribution - half, contribution + half
        zone = self.zone
        held = zone.layers(n_layers) if zone else []
        rule = "family"
        if self.verdict.kind != "transfers":
            rule = next((name for name in self.rules if name not in ("zone", "random")), "family")
        layer = {
            "family": own,
            "middle": n_layers // 2,
            "prior": _highest(depth_prior(n_layers, self.decoding)),
        }[rule]
        lengths = sorted({p.n_layers for p in self.profiles})
        unlike = None
        if not lengths[0] <= n_layers <= lengths[-1]:
            unlike = f"the measured policies have {lengths[0]} to {lengths[-1]} layers, this one has {n_layers}"
        return Advice(n_layers, layer, rule, own, held, contribution, low, high, unlike)


def told(mean: MemberMean, sign: bool = True) -> str:
    """ "+0.12 (+0.05 to +0.19)", without an interval where there is none."""
    plus = "+" if sign else ""
    value, *ends = (None if v is None else f"{round(v, 2) + 0.0:{plus}.2f}" for v in (mean.value, mean.low, mean.high))
    return value if mean.low is None else f"{value} ({ends[0]} to {ends[1]})"


def fit_curve(profiles: Sequence[Profile]):
    """The ridge spline of `calibration.depth_prior` through these profiles, each with the same weight."""
    return fit_prior(
        [
            {
                "n_layers": max(2, p.n_layers),
                "layers": [{"layer": k, "contribution": c} for k, c in p.values.items()],
            }
            for p in profiles
        ]
    )


def _try(profile: Profile, model, zone: float | None, no_prior: bool) -> Trial:
    expected = _predict(model, profile.depths)
    at = _highest(expected)
    layer = profile.layers[at]
    prior = depth_prior(profile.n_layers, profile.decoding)[profile.layers]
    held = [
        regret_at(profile, k)
        for k, d in zip(profile.layers, profile.depths, strict=True)
        if zone is not None and inside(zone, d)
    ]
    return Trial(
        profile,
        layer,
        float(expected[at]),
        profile.values[layer],
        spearman(expected, profile.contributions) if len(profile.layers) >= FEWEST_POINTS else None,
        regret_at(profile, layer),
        regret_at(profile, middle_layer(profile)),
        expected_regret(profile.contributions),
        None if no_prior else regret_at(profile, profile.layers[_highest(prior)]),
        float(np.mean(held)) if held else None,
    )


def _spread_of_one_more(values: Sequence[tuple[str, float]]) -> float:
    """Half width of the 90 % interval for the value of one more member, by Student's t over the members' means."""
    members = dict.fromkeys(member for member, _ in values)
    means = np.array([np.mean([v for m, v in values if m == member]) for member in members])
    n = len(means)
    return float(t.ppf((1 + LEVEL) / 2, n - 1) * means.std(ddof=1) * (1 + 1 / n) ** 0.5)


def _highest(values: np.ndarray) -> int:
    """Position of the highest value; ties go to the later."""
    rounded = np.round(values, 9)
    return int(len(rounded) - 1 - rounded[::-1].argmax())


def _predict(model, depths: np.ndarray) -> np.ndarray:
    return model.predict(np.asarray(depths, dtype=float)[:, None])
