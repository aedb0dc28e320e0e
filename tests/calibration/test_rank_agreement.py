import numpy as np
import pytest
from profiles import profile
from scipy.stats import kendalltau, spearmanr

from calibration.rank_agreement import (
    agreement_of,
    agreements,
    correlation_interval,
    related,
    relation_of,
    shared_positions,
    transfer_of,
)

A = [0.2, 0.9, 0.7, 0.8, 0.3, 0.1]
B = [0.4, 0.8, 1.0, 0.6, 0.2, 0.3]


def test_stacks_of_one_length_are_compared_layer_by_layer():
    found = agreement_of(profile("a", A), profile("b", B))
    assert found.n == 6
    assert found.spearman == pytest.approx(spearmanr(A, B).statistic)
    assert found.kendall == pytest.approx(kendalltau(A, B).statistic)
    assert found.low < found.spearman < found.high
    assert found.ceiling is None  # seeds were not compared


def test_stacks_of_other_length_are_compared_at_the_depths_of_the_shorter():
    long = np.linspace(0, 1, 11) ** 2
    short, there = shared_positions(profile("a", A), profile("b", long))
    assert short.tolist() == A
    assert there == pytest.approx(np.interp(np.linspace(0, 1, 6), np.linspace(0, 1, 11), long))
    back = shared_positions(profile("b", long), profile("a", A))
    assert back[1].tolist() == A


def test_only_layers_that_both_know_count():
    partial = profile("b", {0: 0.1, 2: 0.5, 3: 0.6, 5: 0.2}, n_layers=6)
    found = agreement_of(profile("a", A), partial)
    assert found.n == 4
    assert found.spearman == pytest.approx(spearmanr([0.2, 0.7, 0.8, 0.1], [0.1, 0.5, 0.6, 0.2]).statistic)
    assert found.low is None  # four layers
    assert found.without_depth is None
    assert agreement_of(profile("a", A), profile("b", {0: 0.1, 2: 0.5, 5: 0.6}, n_layers=6)) is None


def test_nothing_is_said_between_layers_that_are_far_apart():
    sparse = profile("a", {0: 0.0, 10: 1.0, 12: 0.5, 27: 0.2}, n_layers=28)
    assert sparse.at(5 / 27) is None
    assert sparse.at(11 / 27) == pytest.approx(0.75)
    assert sparse.at(10 / 27) == pytest.approx(1.0)
    assert profile("b", [0.0, 1.0, 0.0]).at(0.25) == pytest.approx(0.5)  # neighbours in a short stack


def test_the_ceiling_is_what_the_agreement_of_seeds_leaves_room_for():
    found = agreement_of(profile("a", A, seeds=2, seed_agreement=0.5), profile("b", B, seeds=3, seed_agreement=0.4))
    assert found.ceiling == pytest.approx(((2 * 0.5 / 1.5) * (3 * 0.4 / 1.8)) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "relation"),
    [
        ({"member": "a", "task": "sums"}, "repeat"),
        ({"member": "a", "task": "other"}, "task"),
        ({"member": "b", "task": "sums"}, "member"),
        ({"member": "b", "task": "other"}, "member_and_task"),
        ({"member": "b", "task": "sums", "family": "g"}, "family"),
        ({"member": "b", "task": "other", "family": "g"}, "family_and_task"),
    ],
)
def test_relations(changes, relation):
    assert relation_of(profile("a", A), profile(**{"values": B, **changes})) == relation


def test_a_best_layer_is_taken_over_to_the_nearest_measured_one():
    source = profile("a", A)  # best at layer 1 of 6: relative depth 0.2
    target = profile("b", {0: 0.5, 3: 0.9, 4: 0.6, 10: 0.1}, n_layers=11)
    found = transfer_of(source, target)
    assert found.layer == 3
    assert found.regret == 0
    assert found.middle == pytest.approx(0.9 - 0.6)  # layer 4 is nearest to layer 5
    assert found.random == pytest.approx(0.9 - np.mean([0.5, 0.9, 0.6, 0.1]))


def test_the_interval_holds_the_correlation_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=20).T
        low, high = correlation_interval(spearmanr(x, y).statistic, 20)
        inside += low <= 6 / np.pi * np.arcsin(0.25) <= high  # Spearman's of a normal pair
    assert 0.86 <= inside / 400 <= 0.97
    low, high = correlation_interval(1.0, 6)
    assert -1 < low < high <= 1


def test_means_by_relation():
    profiles = [profile(m, values, task=t) for m, values, t in (("a", A, "s"), ("b", B, "s"), ("a", A[::-1], "t"))]
    found = {r.relation: r for r in related(agreements(profiles))}
    assert list(found) == ["task", "member", "member_and_task"]
    assert found["member"].spearman.value == pytest.approx(spearmanr(A, B).statistic)
    assert found["task"].spearman.value == pytest.approx(spearmanr(A, A[::-1]).statistic)
    assert found["member"].spearman.low is None
    moved = [transfer_of(profiles[0], profiles[1]), transfer_of(profiles[1], profiles[0])]
    assert found["member"].regret.value == pytest.approx(np.mean([m.regret for m in moved]))
    assert found["member"].regret.n == 2
