"""What is learnt of families with a planted truth, and of families that have none."""

import numpy as np
import pytest
from profiles import peaked, profile, shuffled

from calibration.families import Family
from calibration.zones import ZONE_WIDTH, choose_zone
from probes.errors import UsageError

LENGTHS = (6, 8, 12, 16, 10, 8)


def planted(peak=0.75, seed=0, tasks=("sums", "sorting")) -> Family:
    rng = np.random.default_rng(seed)
    return Family([peaked(f"m{i}", n, peak, rng, task=t) for i, n in enumerate(LENGTHS) for t in tasks], "greedy")


def random(seed=0, members=6, n_layers=10) -> Family:
    rng = np.random.default_rng(seed)
    return Family([shuffled(f"m{i}", n_layers, rng) for i in range(members)], "greedy")


@pytest.mark.parametrize("peak", [0.2, 0.75])
def test_a_planted_zone_is_found_and_holds_on_policies_left_out(peak):
    zone = planted(peak).zone
    assert zone.end - zone.start == pytest.approx(ZONE_WIDTH)
    assert zone.start < peak < zone.end
    assert zone.centre_low <= (zone.start + zone.end) / 2 <= zone.centre_high
    assert zone.left_out.above_zero


def test_what_a_planted_family_shares_transfers():
    family = planted()
    assert family.verdict.kind == "transfers"
    assert next(iter(family.rules)) == "family"
    assert all(r.spearman.above_zero and r.better_than_random.above_zero for r in family.related)
    advice = family.advise(21)
    assert advice.rule == "family"
    assert abs(advice.layer - 15) <= 2
    assert advice.layer in advice.zone
    assert advice.low < 1 < advice.high  # the planted C at its peak
    assert advice.unlike == "the measured policies have 6 to 16 layers, this one has 21"
    assert family.advise(9).unlike is None


def test_no_better_than_middle_where_the_middle_is_best():
    family = planted(0.5, tasks=("sums",))
    assert family.verdict.kind == "no_better_than_middle"
    assert family.better_than("random").above_zero


def test_nothing_transfers_between_shuffled_profiles():
    family = random()
    assert family.verdict.kind == "does_not_transfer"
    mean = family.related[0].spearman
    assert mean.low < 0 < mean.high
    assert family.advise(10).rule != "zone"


def test_shuffled_profiles_are_rarely_said_to_transfer():
    kinds = [random(seed, members=5, n_layers=8).verdict.kind for seed in range(60)]
    assert np.mean([kind != "does_not_transfer" for kind in kinds]) <= 0.15
    assert kinds.count("transfers") <= 5


@pytest.mark.parametrize("members", [1, 2])
def test_few_policies_have_no_intervals(members):
    family = random(members=members)
    assert family.verdict.kind == "too_few_members"
    assert len(family.trials) == (0 if members == 1 else 2)
    assert all(low is None and high is None for _, _, low, high in family.curve)
    assert family.zone.centre_low is None
    assert family.zone.advantage.low is None
    advice = family.advise(10)
    assert (advice.low, advice.high) == (None, None)


def test_policies_are_judged_by_others_alone():
    """One policy peaks elsewhere: the others' curve must not know."""
    rng = np.random.default_rng(0)
    family = Family([*(peaked(f"m{i}", 11, 0.2, rng) for i in range(4)), peaked("odd", 11, 0.9, rng)], "greedy")
    trial = next(t for t in family.trials if t.profile.member == "odd")
    assert trial.layer <= 4
    assert trial.regret == pytest.approx(max(trial.profile.values.values()) - trial.profile.values[trial.layer])
    assert trial.spearman < 0


def test_trials_of_partial_sweeps_pick_among_measured_layers():
    rng = np.random.default_rng(0)
    partial = profile("p", {0: 0.1, 5: 0.8, 9: 0.3}, n_layers=10)
    family = Family([*(peaked(f"m{i}", 10, 0.5, rng) for i in range(3)), partial], "greedy")
    trial = next(t for t in family.trials if t.profile is partial)
    assert trial.layer == 5
    assert trial.regret == 0
    assert trial.spearman is None  # three layers order too little
    assert trial.random == pytest.approx(0.8 - np.mean([0.1, 0.8, 0.3]))


def test_a_zone_that_holds_the_same_layers_as_its_neighbours_is_taken_in_the_middle():
    assert choose_zone([profile("a", [0, 1, 0])]) == pytest.approx((1 - ZONE_WIDTH) / 2)
    assert choose_zone([profile("a", {3: 1.0}, n_layers=10)]) is None


def test_the_interval_for_one_more_policy_holds_it_as_often_as_it_says():
    """Policies differ in their level: the interval must be as wide as they differ."""
    inside, tries = 0, 60
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        depth = np.linspace(0, 1, 9)
        curve = 0.8 - (depth - 0.5) ** 2
        found = Family([profile(f"m{i}", curve + 0.2 * rng.normal()) for i in range(5)], "greedy").advise(9)
        inside += found.low <= curve[found.family_layer] + 0.2 * rng.normal() <= found.high
    assert 0.8 <= inside / tries <= 0.98


def test_no_layers():
    with pytest.raises(UsageError, match="0 layers"):
        planted().advise(0)
