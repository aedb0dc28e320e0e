import pytest
import torch
from policies import make_model, model_state

from advisor.freezing import Frozen, lora_config, param_groups
from probes.errors import UsageError
from probes.stack import find_stack


def test_trains_exactly_the_layer_and_is_undone(architecture):
    model = architecture.model
    before = model_state(model)
    with Frozen(model, [1]) as frozen:
        wanted = {n for n, _ in model.named_parameters() if n.startswith(f"{architecture.stack.prefix}.1.")}
        assert {n for n, p in model.named_parameters() if p.requires_grad} == wanted == set(frozen.names)
        assert frozen.n_parameters == architecture.stack.sizes()[1]
        assert "in layers {1}" in str(frozen)
    assert model_state(model) == before


def test_layer_1_of_12_is_not_10_or_11():
    model = make_model("Llama", num_hidden_layers=12)
    names = Frozen(model, [1]).names
    assert names
    assert all(name.startswith("model.layers.1.") for name in names)
    import peft

    adapted = peft.get_peft_model(make_model("Llama", num_hidden_layers=12), lora_config(model, [1], r=2))
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert all(".layers.1." in name for name in trained)


@pytest.mark.parametrize("enabled_first", [True, False])
def test_checkpointing_does_not_make_backward_run_below_the_layer(enabled_first):
    model = make_model("Llama").train()
    if enabled_first:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with Frozen(model, [2]):
        if not enabled_first:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        seen = []
        find_stack(model).layers[2].register_forward_pre_hook(lambda _, args: seen.append(args[0].requires_grad))
        model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
        assert seen
        assert not any(seen)


def test_a_layer_that_is_not_there_changes_nothing():
    model = make_model("Llama")
    before = model_state(model)
    with pytest.raises(UsageError, match="out of range"):
        Frozen(model, [3])
    assert model_state(model) == before


def test_weights_shared_between_layers_are_noticed():
    model = make_model("Llama")
    layers = find_stack(model).layers
    layers[2].mlp = layers[1].mlp
    with pytest.raises(UsageError, match="share weights"):
        Frozen(model, [1])


def test_groups_hold_every_parameter_once():
    model = make_model("Qwen2")  # tied embeddings
    pick, others = param_groups(model, [1], 1e-6, scheme="boost")
    assert (pick["lr"], others["lr"]) == (2e-6, 1e-6)
    assert len(pick["params"]) + len(others["params"]) == len(list(model.parameters()))
    torch.optim.AdamW([pick, others])  # refuses a parameter in two groups
    assert [g["lr"] for g in param_groups(model, [1], 1e-6)] == [1e-6]
    with pytest.raises(UsageError, match="Unknown scheme"):
        param_groups(model, [1], 1e-6, scheme="other")
