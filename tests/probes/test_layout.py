import numpy as np
import pytest
import torch
from policies import make_model, make_rollouts

from probes.layout import choose_layout, shared_layout, shares_prompts, unshared_layout
from probes.objective import lay_out
from probes.rollouts import Group


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


def test_only_predicts_the_chosen_tokens(tiny, rollouts):
    batch = lay_out(tiny, rollouts)[0]
    chosen = batch.completion == 2
    part = batch.only(chosen)
    assert part.inputs["logits_to_keep"].numel() < batch.inputs["logits_to_keep"].numel()
    torch.testing.assert_close(
        part.log_probs(tiny.model(**part.inputs).logits), batch.log_probs(tiny.model(**batch.inputs).logits)[chosen]
    )


@pytest.mark.parametrize("layout", [shared_layout, unshared_layout])
def test_several_groups_at_once_are_as_one_by_one(architecture, layout):
    """Prompts and completions of different lengths, and an empty completion."""
    if architecture.name == "Bloom" and layout is shared_layout:
        return
    groups = make_rollouts().groups
    groups[2].completion_ids[1] = []
    weights = [group.rewards for group in groups]
    together = layout(architecture, groups, weights, 0.7)
    alone = [layout(architecture, [g], [w], 0.7) for g, w in zip(groups, weights, strict=True)]
    with torch.no_grad():
        found = together.log_probs(architecture.model(**together.inputs).logits)
        expected = torch.cat([batch.log_probs(architecture.model(**batch.inputs).logits) for batch in alone])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(together.weights, torch.cat([batch.weights for batch in alone]))
    lengths = [len(part) for group in groups for part in group.completion_ids]
    assert torch.bincount(together.completion, minlength=18).tolist() == lengths


def test_long_completions_of_a_group_do_not_share_a_row(tiny):
    """Attention over one row of all completions would cost more than repeating a short prompt."""
    short, long = (Group({}, [5] * 10, [[6] * n] * 8, [""] * 8, np.arange(8.0)) for n in (4, 200))
    assert choose_layout(tiny, [short]) is shared_layout
    assert choose_layout(tiny, [long]) is unshared_layout
