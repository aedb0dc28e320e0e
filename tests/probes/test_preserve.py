import pytest
import torch
from policies import make_model, model_state

from probes.preserve import left_as_found


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back(ending):
    model = make_model("Llama").train()
    model.model.layers[1].eval()
    model.lm_head.weight.requires_grad_(False)
    model.model.layers[0].mlp.up_proj.weight.grad = torch.ones_like(model.model.layers[0].mlp.up_proj.weight)
    own_hook = model.model.layers[2].register_forward_hook(lambda *a: None)
    before, grad = model_state(model), model.model.layers[0].mlp.up_proj.weight.grad

    def change():
        with left_as_found(model):
            model.eval()
            model.requires_grad_(False)
            model.model.layers[0].forward = lambda x: x
            model.model.layers[0].register_forward_hook(lambda *a: None)
            model.model.layers[0].register_forward_pre_hook(lambda *a: None)
            model.lm_head.weight.requires_grad_(True)
            model.zero_grad(set_to_none=True)
            torch.rand(3)
            if ending is not None:
                raise ending

    if ending is None:
        change()
    else:
        with pytest.raises(ending):
            change()
    assert model_state(model) == before
    assert model.model.layers[0].mlp.up_proj.weight.grad is grad
    own_hook.remove()


def test_hidden_states_can_still_be_asked_for_afterwards():
    """transformers puts its recording hooks in at first use, which may be inside."""
    model, ids = make_model("Llama"), torch.arange(4)[None]
    with left_as_found(model):
        model(ids, output_hidden_states=True)
    assert len(model(ids, output_hidden_states=True).hidden_states) == 4
