import numpy as np
import torch
from policies import make_rollouts, model_state, only_layer_matters

from probes.measure import measure
from probes.objective import lay_out
from probes.registry import get_probe


def measured(policy, rollouts):
    return measure([get_probe("attribution")], policy=policy, rollouts=rollouts)


def test_against_plain_autograd(architecture):
    rollouts = make_rollouts()
    totals = np.zeros(3)
    for batch in lay_out(architecture, rollouts):
        kept, hooks = [], []
        for layer in architecture.stack.layers:

            def keep(module, args, output, kept=kept):
                hidden = output[0] if isinstance(output, tuple) else output
                hidden.retain_grad()
                kept.append(hidden)

            hooks.append(layer.register_forward_hook(keep))
        batch.objective(architecture.model(**batch.inputs).logits).backward()
        for hook in hooks:
            hook.remove()
        totals += [float((h.detach() * h.grad).abs().sum()) for h in kept]
    found = measured(architecture, rollouts).columns["grad_x_activation"]
    np.testing.assert_allclose(found, totals / len(rollouts.informative), rtol=1e-4)


def test_null_constant_reward(tiny, rollouts):
    flat = make_rollouts()
    for group in flat.groups:
        group.rewards[:] = 1.0
    assert "reward spread" in measured(tiny, flat).failures["attribution"]


def test_nothing_flows_behind_a_planted_cut(own_tiny, rollouts):
    """With the head blind to the stream nothing is attributed; with one live layer only the stream's size matters."""
    only_layer_matters(own_tiny, 3)
    live = measured(own_tiny, rollouts).columns["grad_x_activation"]
    np.testing.assert_allclose(live[3:], live[3], rtol=1e-4)  # after the live layer the stream does not change
    np.testing.assert_allclose(live[:3], live[0], rtol=1e-4)
    with torch.no_grad():
        own_tiny.model.model.norm.weight.zero_()
    assert np.all(measured(own_tiny, rollouts).columns["grad_x_activation"] == 0)


def test_policy_is_as_found(tiny, rollouts):
    before = model_state(tiny.model)
    measured(tiny, rollouts)
    assert model_state(tiny.model) == before
