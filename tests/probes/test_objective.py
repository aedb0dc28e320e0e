import numpy as np
import pytest
import torch
from policies import make_rollouts

from probes.objective import lay_out


def test_objective_is_the_token_level_policy_gradient(tiny, rollouts):
    """Against a loop over single completions: mean J_i = sum A log pi / tokens."""
    reference, tokens = 0.0, 0
    for group in rollouts.informative:
        for ids, advantage in zip(group.completion_ids, group.advantages, strict=True):
            logits = tiny.model(torch.tensor([group.prompt_ids + ids])).logits[0].log_softmax(-1)
            steps = range(len(group.prompt_ids) - 1, len(group.prompt_ids) + len(ids) - 1)
            reference += advantage * sum(float(logits[t, i]) for t, i in zip(steps, ids, strict=True))
            tokens += len(ids)
    batches = lay_out(tiny, rollouts)
    found = np.mean([float(batch.objective(tiny.model(**batch.inputs).logits)) for batch in batches])
    assert found == pytest.approx(reference / tokens, rel=1e-4)


def test_groups_without_spread_are_left_out(tiny):
    rollouts = make_rollouts(3)
    rollouts.groups[1].rewards[:] = 2.0
    assert len(lay_out(tiny, rollouts)) == 2
    for group in rollouts.groups:
        group.rewards[:] = 0.0
    assert lay_out(tiny, rollouts) == []
