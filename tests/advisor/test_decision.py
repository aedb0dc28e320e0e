import numpy as np
import pytest
from policies import make_rollouts

from advisor.decision import judge_reward, judge_table
from probes.table import LayerTable


def rollouts_with(*group_rewards):
    rollouts = make_rollouts(len(group_rewards), len(group_rewards[0]))
    for group, rewards in zip(rollouts.groups, group_rewards, strict=True):
        group.rewards[:] = rewards
    return rollouts


MIXED, ZERO, ONE = [0, 1, 0], [0, 0, 0], [1, 1, 1]
NONE = [np.nan] * 3


@pytest.mark.parametrize(
    ("groups", "held_out", "max_reward", "kind"),
    [
        ([MIXED] * 4, None, 1.0, None),
        ([MIXED] * 4, [0.4, 0.6], 1.0, None),
        ([ZERO] * 8, None, 1.0, "constant_reward"),
        ([ONE] * 8, None, 1.0, "no_headroom"),
        ([ONE] * 8, None, None, "constant_reward"),  # without a known best, a constant is only a constant
        ([NONE] * 8, None, 1.0, "constant_reward"),
        ([ZERO, ONE] * 4, None, 1.0, "no_reward_spread"),
        ([MIXED] * 3 + [ZERO] * 20, None, 1.0, "no_reward_spread"),
        ([MIXED] * 4, [1.0] * 64, 1.0, "no_headroom"),
        ([MIXED] * 4, [5.0] * 64, None, None),
        ([MIXED] * 4, [], 1.0, None),
    ],
)
def test_what_rewards_alone_decide(groups, held_out, max_reward, kind):
    held_out = None if held_out is None else np.array(held_out)
    verdict = judge_reward(rollouts_with(*groups), held_out, "greedy", max_reward)
    assert (verdict and verdict.kind) == kind
    assert verdict is None or not verdict.has_ranking


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"fisher": [1, 2, 3], "spectral_excess": [2, 2, 2]}, None),
        ({"fisher": [1, 1, 1], "spectral_excess": [2, 2, 2]}, "indistinguishable"),
        ({"relative_depth": [0, 0.5, 1]}, "indistinguishable"),
        ({}, "indistinguishable"),
        ({"fisher": [1, 2, 3], "spectral_excess": [0.98, 1.02, 1.0]}, "random_weights"),
    ],
)
def test_what_the_table_decides(columns, kind):
    table = LayerTable(3)
    table.add({name: np.array(values, dtype=float) for name, values in columns.items()})
    verdict = judge_table(table)
    assert (verdict and verdict.kind) == kind
    assert verdict is None or not verdict.has_ranking
