"""The best zone: the third of the stack whose layers bring most, chosen and judged on different policies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.contribution import LEVEL
from calibration.over_members import FEWEST, MemberMean, draw_members, mean_over_members
from calibration.profiles import Profile
from probes.depth import depth_of

ZONE_WIDTH = 1 / 3  # of relative depth
_STARTS = np.linspace(0, 1 - ZONE_WIDTH, 17)


@dataclass(frozen=True)
class Zone:
    """The third of the stack whose layers bring most, from ``start`` to ``end`` in relative depth.

    ``centre_low`` and ``centre_high``: 90 % of the centres that are found when whole policies are drawn again; None
    below three. ``advantage`` is the mean C of layers inside over that of those outside, chosen and judged on the same
    policies; ``left_out`` the same on policies that it was not chosen on.
    """

    start: float
    end: float
    centre_low: float | None
    centre_high: float | None
    advantage: MemberMean
    left_out: MemberMean | None

    def layers(self, n_layers: int) -> list[int]:
        """The layers of a stack of so many that lie in it."""
        return [k for k in range(n_layers) if inside(self.start, depth_of(k, n_layers))]


def inside(start: float, depth: float) -> bool:
    """Whether a relative depth lies in the zone that begins at `start`."""
    return start - 1e-9 <= depth <= start + ZONE_WIDTH + 1e-9


def zone_advantages(profile: Profile) -> np.ndarray:
    """Mean C of the measured layers inside each candidate zone over those outside, (zones,); NaN without either."""
    found = np.full(len(_STARTS), np.nan)
    for i, start in enumerate(_STARTS):
        held = np.array([inside(start, d) for d in profile.depths])
        if held.any() and not held.all():
            found[i] = profile.contributions[held].mean() - profile.contributions[~held].mean()
    return found


def choose_zone(profiles: Sequence[Profile]) -> float | None:
    """Start of the zone with the largest mean advantage, every policy with the same weight; None where there is none.

    Of neighbours that do equally well, since they hold the same layers, the one in the middle. Only zones that at least
    half of the policies have measured layers in and outside of are looked at.
    """
    by_member = _by_member(profiles)
    chosen = _choose(by_member, np.ones((1, len(by_member))))[0]
    return None if np.isnan(chosen) else float(chosen)


def best_zone(profiles: Sequence[Profile]) -> Zone | None:
    """The best zone with its intervals; None where no profile has layers inside and outside of one."""
    start = choose_zone(profiles)
    if start is None:
        return None
    members = list(dict.fromkeys(p.member for p in profiles))
    own, others = [], []
    for profile in profiles:
        rest = [p for p in profiles if p.member != profile.member]
        own.append((_advantage(profile, start), profile.member))
        others.append((_advantage(profile, choose_zone(rest)) if rest else np.nan, profile.member))
    low = high = None
    if len(members) >= FEWEST:
        centres = _choose(_by_member(profiles), draw_members(len(members))) + ZONE_WIDTH / 2
        low, high = map(float, np.nanquantile(centres, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    means = []
    for found in (own, others):
        known = [(value, (member,)) for value, member in found if np.isfinite(value)]
        means.append(mean_over_members([value for value, _ in known], [member for _, member in known]))
    return Zone(start, start + ZONE_WIDTH, low, high, *means)


def _by_member(profiles: Sequence[Profile]) -> np.ndarray:
    """Mean zone advantages of each policy, (members, zones), NaN where none of its profiles has any."""
    rows = []
    for member in dict.fromkeys(p.member for p in profiles):
        found = np.array([zone_advantages(p) for p in profiles if p.member == member])
        known = np.isfinite(found)
        total = np.where(known, found, 0).sum(0)
        rows.append(np.where(known.any(0), total / np.maximum(1, known.sum(0)), np.nan))
    return np.array(rows)


def _choose(by_member: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Start of the best zone for each row of how often the members count, (draws,)."""
    known = np.isfinite(by_member).astype(float)
    weight = counts @ known
    mean = np.where(weight > 0, counts @ np.nan_to_num(by_member) / np.maximum(1e-12, weight), -np.inf)
    mean[weight < counts.sum(1, keepdims=True) / 2] = -np.inf
    found = np.full(len(counts), np.nan)
    for i, row in enumerate(mean):
        if np.isfinite(row.max()):
            best = first = int(row.argmax())
            while best + 1 < len(row) and row[best + 1] > row[first] - 1e-9:
                best += 1
            found[i] = _STARTS[(first + best) // 2]
    return found


def _advantage(profile: Profile, start: float | None) -> float:
    return float(zone_advantages(profile)[np.abs(_STARTS - start).argmin()]) if start is not None else np.nan
