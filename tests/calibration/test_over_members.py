from itertools import combinations

import numpy as np
import pytest

from calibration.over_members import mean_over_members


def test_without_values_there_is_no_mean():
    assert mean_over_members([], []) is None


@pytest.mark.parametrize("n", [1, 2])
def test_below_three_policies_there_is_no_interval(n):
    found = mean_over_members([1.0] * 5, [(str(i % n),) for i in range(5)])
    assert (found.value, found.low, found.high, found.n, found.members) == (1.0, None, None, 5, n)
    assert not found.above_zero
    assert not found.below_zero


def test_values_of_one_policy_count_as_one_piece_of_evidence():
    rng = np.random.default_rng(0)
    values = rng.normal(size=6)
    alone = mean_over_members(values, [(str(i),) for i in range(6)])
    repeated = mean_over_members(np.repeat(values, 20), [(str(i),) for i in range(6) for _ in range(20)])
    assert repeated.low == pytest.approx(alone.low)
    assert repeated.high == pytest.approx(alone.high)


@pytest.mark.parametrize("n", [3, 5, 18])
def test_intervals_hold_the_truth_as_often_as_they_say(n):
    """Of values of single policies, and of pairs of policies that share what is theirs; nominal 0.9."""
    rng = np.random.default_rng(n)
    single, paired, tries = 0, 0, 150
    for _ in range(tries):
        own = rng.normal(size=n)
        found = mean_over_members(own, [(str(i),) for i in range(n)])
        single += found.low <= 0 <= found.high
        pairs = list(combinations(range(n), 2))
        found = mean_over_members(
            [own[a] + own[b] + rng.normal() for a, b in pairs], [tuple(map(str, p)) for p in pairs]
        )
        paired += found.low <= 0 <= found.high
    assert 0.82 <= single / tries <= 0.98
    assert 0.76 <= paired / tries <= 1.0
