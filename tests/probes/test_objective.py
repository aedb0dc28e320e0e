import numpy as np
import pytest
import torch
from policies import make_model, make_rollouts

from probes.objective import lay_out, shares_prompts


def test_shared_layout_equals_the_unshared_one(architecture):
    """Log-probabilities and gradients; Bloom takes no positions and must be found not to share."""
    assert shares_prompts(architecture) == (architecture.name != "Bloom")
    if architecture.name == "Bloom":
        return
    rollouts = make_rollouts()
    found = []
    for shared in (True, False):
        architecture.model.zero_grad()
        batches = lay_out(architecture, rollouts, shared=shared)
        log_probs = [batch.log_probs(architecture.model(**batch.inputs).logits) for batch in batches]
        sum((batch.weights * lp).sum() for batch, lp in zip(batches, log_probs, strict=True)).backward()
        found.append(
            (torch.cat(log_probs), [p.grad.clone() for p in architecture.model.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_ignores_the_mask_is_found_out(own_tiny, dtype):
    """In half precision too, where the log-probabilities alone would be within rounding for a blunt test."""
    model = own_tiny.model.to(dtype)
    assert shares_prompts(own_tiny)
    original = model.forward
    model.forward = lambda attention_mask=None, **inputs: original(
        attention_mask=attention_mask if attention_mask.ndim == 2 else None, **inputs
    )
    assert not shares_prompts(own_tiny)


def test_sequences_beyond_a_sliding_window_are_not_shared(tiny):
    policy = tiny.from_objects(make_model("Gemma2", sliding_window=8), tiny.tokenizer)
    rollouts = make_rollouts()
    assert shares_prompts(policy)
    assert all(len(batch.inputs["input_ids"]) == 3 for batch in lay_out(policy, rollouts))
    assert all(len(batch.inputs["input_ids"]) == 1 for batch in lay_out(tiny, rollouts))


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


def test_only_predicts_the_chosen_tokens(tiny, rollouts):
    batch = lay_out(tiny, rollouts)[0]
    chosen = batch.completion == 2
    part = batch.only(chosen)
    assert part.inputs["logits_to_keep"].numel() < batch.inputs["logits_to_keep"].numel()
    torch.testing.assert_close(
        part.log_probs(tiny.model(**part.inputs).logits), batch.log_probs(tiny.model(**batch.inputs).logits)[chosen]
    )


def test_groups_without_spread_are_left_out(tiny):
    rollouts = make_rollouts(3)
    rollouts.groups[1].rewards[:] = 2.0
    assert len(lay_out(tiny, rollouts)) == 2
    for group in rollouts.groups:
        group.rewards[:] = 0.0
    assert lay_out(tiny, rollouts) == []
