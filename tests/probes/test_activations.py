import numpy as np
import torch
from policies import make_rollouts, only_layer_matters

from probes.measure import measure
from probes.objective import lay_out
from probes.registry import get_probe


def measured(policy, rollouts):
    return measure([get_probe("activations")], policy=policy, rollouts=rollouts).columns


def test_against_the_textbook(tiny, rollouts):
    """Hidden states of single completions from transformers; the prompt's tokens are counted once a group."""
    turned, tokens = np.zeros(6), 0
    gain, answer_tokens = np.zeros(6), 0
    for group in rollouts.informative:
        best = int(group.advantages.argmax())
        n_prompt = len(group.prompt_ids)
        for j, ids in enumerate(group.completion_ids):
            with torch.no_grad():
                states = list(
                    tiny.model.model(torch.tensor([group.prompt_ids + ids]), output_hidden_states=True).hidden_states
                )
                norms = [tiny.model.model.norm(h) for h in states[:-1]] + [states[-1]]
            counted = slice(0 if j == 0 else n_prompt, None)
            for k in range(5):  # transformers gives the last layer's output only after the norm
                turned[k] += float((1 - torch.cosine_similarity(states[k], states[k + 1], dim=-1))[0, counted].sum())
            tokens += n_prompt * (j == 0) + len(ids)
            if j == best:
                logs = [tiny.model.lm_head(h)[0, n_prompt - 1 : -1].log_softmax(-1) for h in norms]
                picked = [float(x[range(len(ids)), ids].detach().sum()) for x in logs]
                gain += np.diff(picked)
                answer_tokens += len(ids)
    found = measured(tiny, rollouts)
    np.testing.assert_allclose(found["block_influence"][:5], turned[:5] / tokens, rtol=1e-3)
    np.testing.assert_allclose(found["answer_gain"], gain / answer_tokens, rtol=1e-3, atol=1e-4)


def test_answer_gains_add_up_to_the_policys_log_probability(tiny, rollouts):
    """The blocks' changes telescope from the embeddings' read-out to the policy's own."""
    batches = [b.only(b.completion == b.completion[b.weights.argmax()]) for b in lay_out(tiny, rollouts)]
    with torch.no_grad():
        final = torch.cat([b.log_probs(tiny.model(**b.inputs).logits) for b in batches]).mean()
        embedded = []
        for b in batches:
            hidden = tiny.model.model.norm(tiny.model.get_input_embeddings()(b.inputs["input_ids"]))
            embedded.append(b.log_probs(tiny.model.lm_head(hidden)[:, b.inputs["logits_to_keep"]]))
    total = measured(tiny, rollouts)["answer_gain"].sum()
    np.testing.assert_allclose(total, float(final - torch.cat(embedded).mean()), rtol=1e-4)


def test_planted_layer_is_the_only_one_that_does_anything(own_tiny, rollouts):
    only_layer_matters(own_tiny, 2)
    for values in measured(own_tiny, rollouts).values():
        assert np.flatnonzero(np.abs(values) > 1e-6).tolist() == [2]


def test_works_on_every_architecture_and_untrained_layers_bring_no_answer(architecture):
    """Null: with random weights and random rewards no block raises the answer's log-probability by much."""
    columns = measured(architecture, make_rollouts())
    assert np.all(columns["block_influence"] >= -1e-6)
    assert np.abs(columns["answer_gain"]).max() < 1.0
