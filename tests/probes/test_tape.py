import gc
import weakref

import pytest
import torch
from policies import make_rollouts, model_state

from probes.objective import lay_out
from probes.preserve import left_as_found
from probes.tape import recorded


def tape_gradients(policy, batches, graph_bytes):
    """Group gradients by layer, group, parameter."""
    found = {}
    with left_as_found(policy.model), recorded(policy, batches, graph_bytes=graph_bytes) as tape:
        for k, gradients in tape.backward():
            found[k] = [[None if g is None else g.clone() for g in group] for group in gradients]
    return found


@pytest.mark.parametrize("graph_bytes", [0, 60_000, 1 << 30], ids=["recomputed", "some kept", "kept"])
def test_gradients_are_those_of_autograd(architecture, graph_bytes):
    """Against one ordinary backward pass a group."""
    batches = lay_out(architecture, make_rollouts())
    found = tape_gradients(architecture, batches, graph_bytes)
    assert list(found) == [2, 1, 0]
    for i, batch in enumerate(batches):
        architecture.model.zero_grad()
        batch.objective(architecture.model(**batch.inputs).logits).backward()
        for k, layer in enumerate(architecture.stack.layers):
            for gradient, parameter in zip(found[k][i], layer.parameters(), strict=True):
                if gradient is None:
                    assert parameter.grad is None or not parameter.grad.any()
                else:
                    torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-7)
    architecture.model.zero_grad()


def test_hidden_states_are_the_residual_stream(tiny, rollouts):
    batches = lay_out(tiny, rollouts)
    with left_as_found(tiny.model), recorded(tiny, batches) as tape:
        reference = tiny.model(**batches[0].inputs, output_hidden_states=True).hidden_states
        for k in range(tiny.n_layers):
            torch.testing.assert_close(tape.hidden(0, k), reference[k].detach())
        final = tiny.model.model.norm(tape.hidden(0, tiny.n_layers))
        torch.testing.assert_close(final, reference[-1].detach())


def test_one_layers_gradients_at_a_time(tiny, rollouts):
    """Every gradient of a layer is gone before the next layer's first one comes."""
    batches = lay_out(tiny, rollouts)
    with left_as_found(tiny.model), recorded(tiny, batches) as tape:
        earlier = []
        for _, gradients in tape.backward():
            gc.collect()
            assert all(reference() is None for reference in earlier)
            earlier = [weakref.ref(g) for group in gradients for g in group]


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_policy_is_as_found(tiny, rollouts, ending):
    before = model_state(tiny.model)

    def run():
        with left_as_found(tiny.model), recorded(tiny, lay_out(tiny, rollouts)) as tape:
            for k, _ in tape.backward():
                if ending is not None and k == 3:
                    raise ending

    if ending is None:
        run()
    else:
        with pytest.raises(ending):
            run()
    assert model_state(tiny.model) == before
