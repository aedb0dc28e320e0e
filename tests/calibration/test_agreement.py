from itertools import combinations

import numpy as np
import pytest

from calibration import agreement

RNG = np.random.default_rng(0)


def test_regret_by_hand():
    truth = np.array([0.1, 0.9, 0.5, 0.7])
    assert agreement.regret(np.array([4.0, 1, 2, 3]), truth) == pytest.approx(0.8)
    assert agreement.regret(np.array([4.0, 1, 2, 3]), truth, top=3) == pytest.approx(0.2)
    assert agreement.regret(np.zeros(4), truth) == pytest.approx(0.2)  # ties go to the later layer


@pytest.mark.parametrize("top", [1, 2, 3, 5])
def test_expected_regret_is_that_of_every_choice(top):
    truth = RNG.normal(size=5)
    every = [truth.max() - truth[list(chosen)].max() for chosen in combinations(range(5), top)]
    assert agreement.expected_regret(truth, top) == pytest.approx(np.mean(every))


def test_constant_scores_order_nothing():
    assert agreement.spearman(np.ones(5), RNG.normal(size=5)) == 0
    assert agreement.kendall(RNG.normal(size=5), np.ones(5)) == 0


def test_what_a_quadratic_explains_is_taken_out():
    depth = np.linspace(-1, 1, 9)
    assert agreement.depth_residual(2 * depth - depth**2, depth) == 0
    bump = RNG.normal(size=9)
    assert agreement.depth_residual(bump + 5 * depth, bump - 3 * depth**2) == pytest.approx(1)


def test_circular_shift_finds_a_planted_effect_and_no_other():
    truths = [RNG.normal(size=10) for _ in range(12)]
    assert agreement.circular_shift_p([(t + 0.5 * RNG.normal(size=10), t) for t in truths]) < 0.01
    null = [agreement.circular_shift_p([(RNG.normal(size=10), t) for t in truths], seed=i) for i in range(20)]
    assert 0.25 < np.mean(null) < 0.75


def test_the_ceiling_is_what_the_truth_itself_reaches():
    """Slow reference: correlation of a known truth with the mean of two noisy seeds."""
    reached, said = [], []
    for _ in range(200):
        truth = RNG.normal(size=30)
        seeds = truth + RNG.normal(size=(2, 30))
        reached.append(agreement.spearman(truth, seeds.mean(0)))
        said.append(agreement.seed_ceiling(seeds))
    assert np.mean(said) == pytest.approx(np.mean(reached), abs=0.04)
