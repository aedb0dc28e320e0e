from dataclasses import replace

import numpy as np
import pytest
import torch
from policies import only_layer_matters

from probes.checkpoint import LoadedWeights
from probes.errors import ProbeFailure
from probes.gradients import ADAM_EPS, fold_gradients, measure_gradients
from probes.measure import Measurement, measure
from probes.objective import lay_out
from probes.registry import get_probe
from probes.rollouts import Group, Rollouts

COLUMNS = [column.name for column in get_probe("gradients").columns]


def measured(policy, rollouts):
    return measure([get_probe("gradients")], policy=policy, rollouts=rollouts)


def textbook(policy, rollouts):
    """All statistics from full group gradients held in memory, as their definitions read."""
    rows = []
    gradients = []
    for batch in lay_out(policy, rollouts, shared=False):
        policy.model.zero_grad()
        batch.objective(policy.model(**batch.inputs).logits).backward()
        gradients.append([torch.cat([p.grad.flatten() for p in layer.parameters()]) for layer in policy.stack.layers])
    policy.model.zero_grad()
    n = len(gradients)
    for k, layer in enumerate(policy.stack.layers):
        g = torch.stack([group[k] for group in gradients]).double()
        mean, a, b = g.mean(0), g[0::2].mean(0), g[1::2].mean(0)
        weights = torch.cat([p.detach().flatten() for p in layer.parameters()])
        step = lambda x: x / (x.abs() + ADAM_EPS)  # noqa: E731
        rows.append(
            [
                mean.norm(),
                mean.norm() / weights.norm(),
                g.square().sum(1).mean(),
                mean.square().sum() / (g.var(0).sum() / n),
                torch.cosine_similarity(a, b, dim=0),
                (step(a) @ b + step(b) @ a) / 2,
            ]
        )
    return dict(zip(COLUMNS, np.array(rows, dtype=float).T, strict=True))


def test_against_the_textbook(tiny, rollouts):
    table, reference = measured(tiny, rollouts), textbook(tiny, rollouts)
    for name in COLUMNS:
        np.testing.assert_allclose(table.columns[name], reference[name], rtol=2e-3, atol=1e-6, err_msg=name)


def test_fold_by_hand():
    """Two weights, four groups: halves (1, 0), (3, 0) and (0, 2), (2, 2)."""
    groups = [[torch.tensor(g)] for g in ([1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [2.0, 2.0])]
    found = fold_gradients(groups, [torch.tensor([3.0, 4.0])])
    assert found.grad_norm == pytest.approx(np.hypot(1.5, 1.0))
    assert found.relative_grad_norm == pytest.approx(np.hypot(1.5, 1.0) / 5)
    assert found.fisher == pytest.approx((1 + 4 + 9 + 8) / 4)
    assert found.grad_snr == pytest.approx(3.25 / ((5.5 - 3.25) / 3))
    assert found.cross_half_cosine == pytest.approx(2 / (2 * 5**0.5))
    assert found.adam_gain == pytest.approx((1 + 2) / 2)  # sign(2, 0) on (1, 2), and sign(1, 2) on (2, 0)


def test_no_gradient_gives_zeros_and_missing_ones_are_skipped():
    found = fold_gradients([[torch.zeros(2), None]] * 4, [torch.ones(2), torch.ones(3)])
    assert vars(found) == dict.fromkeys(COLUMNS, 0.0)


def with_reward(rollouts, reward):
    groups = [replace(g, rewards=np.array(reward(g), dtype=float)) for g in rollouts.groups]
    return Rollouts(groups, rollouts.max_new_tokens, rollouts.temperature, rollouts.eos_ids)


@pytest.fixture(scope="module")
def many(_tiny, sums):
    from probes.rollouts import SamplingConfig, collect_rollouts

    return collect_rollouts(_tiny, sums, SamplingConfig(groups=60, max_prompts=60, max_new_tokens=4, seed=5))


def test_null_shuffled_rewards_are_noise(tiny, many):
    """Rewards without a relation to the completions: signal-to-noise about 1, cosine about 0."""
    rng = np.random.default_rng(0)
    snr, cosine = [], []
    for _ in range(3):
        columns = measured(tiny, with_reward(many, lambda g: rng.permutation(len(g.rewards)))).columns
        snr.append(columns["grad_snr"])
        cosine.append(columns["cross_half_cosine"])
    assert 0.5 < np.mean(snr) < 2.0
    assert abs(np.mean(cosine)) < 0.2


def test_planted_consistent_reward_is_signal(tiny, many):
    """A reward for the same token in every group pulls all groups one way, far above shuffled rewards."""
    columns = measured(tiny, with_reward(many, lambda g: [float("7" in text) for text in g.completions])).columns
    assert np.median(columns["grad_snr"]) > 3.0
    assert np.median(columns["cross_half_cosine"]) > 0.3
    assert columns["adam_gain"].min() > 0


def test_null_constant_reward_has_no_gradient(tiny, rollouts):
    table = measured(tiny, with_reward(rollouts, lambda g: np.ones(len(g.rewards))))
    assert table.columns == {}
    assert "reward spread" in table.failures["gradients"]


def test_too_few_groups_is_a_reason(tiny, rollouts):
    few = Rollouts(rollouts.informative[:3], 4, 1.0)
    with Measurement(LoadedWeights.of(tiny), tiny, few) as measurement, pytest.raises(ProbeFailure, match="only 3"):
        measure_gradients(measurement)


@pytest.mark.parametrize("k", [1, 4])
def test_planted_layer_comes_first(own_tiny, rollouts, k):
    only_layer_matters(own_tiny, k)
    for name, values in measured(own_tiny, rollouts).columns.items():
        others = np.delete(values, k)
        assert np.all(others == 0), name
        assert values[k] != 0, name


def test_groups_carry_the_completions_they_were_scored_on(rollouts):
    group: Group = rollouts.informative[0]
    assert len(group.completions) == len(group.completion_ids) == len(group.rewards)
