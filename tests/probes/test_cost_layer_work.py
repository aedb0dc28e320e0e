import numpy as np
import pytest
import torch
import transformers
from policies import ARCHITECTURES, make_model

from probes.cost import Arm, StepShape, count_layers, layer_costs
from probes.cost.built import counted_model
from probes.cost.counting import count_pass
from probes.cost.layer_work import _OPTIMIZER_FLOPS
from probes.errors import RunError

SHAPE = StepShape(prompts=1, group_size=3, prompt_tokens=7, max_new_tokens=9)
MIXED = {  # stacks whose layers are not alike
    "Lfm2": {
        "layer_types": ["conv", "full_attention", "conv"],
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
}


@pytest.mark.parametrize("name", [*ARCHITECTURES, *MIXED])
def test_one_pass_says_what_a_pass_for_each_layer_says(name):
    config = getattr(transformers, f"{name}Config")(**(MIXED.get(name) or ARCHITECTURES[name][1]))
    with counted_model(config, torch.float32) as model:
        work = count_layers(model, SHAPE)
        full = count_pass(model, Arm(), SHAPE)
        for k in range(3):
            one = count_pass(model, Arm(k), SHAPE)
            assert one.forward_flops == work.total_forward
            assert one.backward_flops == work.backward(k)
    assert full.backward_flops == 2 * work.head_backward + work.both.sum()


def test_costs_fall_with_depth_and_stay_below_full():
    for name in ("Llama", "GPT2", "Gemma2"):
        costs = layer_costs(make_model(name, **({"n_layer": 6} if name == "GPT2" else {"num_hidden_layers": 6})))
        assert (np.diff(costs) < 0).all()
        assert 0.3 < costs.min() < costs.max() < 1


def test_costs_by_a_pass_for_each_layer():
    model = make_model("Llama")
    shape = StepShape(1, 2, 20, 12)
    costs = layer_costs(model, shape)
    with counted_model(model.config, torch.bfloat16) as counted:
        counts = [count_pass(counted, arm, shape) for arm in (Arm(), Arm(0), Arm(1), Arm(2))]
    work = np.array([c.forward_flops + c.backward_flops + _OPTIMIZER_FLOPS * c.trainable for c in counts])
    np.testing.assert_allclose(costs, work[1:] / work[0], rtol=1e-9)


def test_a_larger_layer_may_cost_more_than_an_earlier_one():
    """Costs are of the layer's own work too, so they need not fall with depth."""
    costs = layer_costs(transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**MIXED["Lfm2"])))
    assert costs.shape == (3,)
    assert np.isfinite(costs).all()


def test_a_model_that_cannot_be_counted_is_judged_by_size(monkeypatch):
    def depends_on_numbers(model, shape):
        raise RuntimeError("a tensor's number was asked for")

    model = make_model("Llama", num_hidden_layers=6)
    monkeypatch.setattr("probes.cost.layer_work.count_layers", depends_on_numbers)
    costs = layer_costs(model)
    np.testing.assert_allclose(np.diff(costs), np.diff(costs)[0])  # equal layers: each step up costs the same
    assert 0 < costs[5] < costs[0] < 1
    told = pytest.raises(RunError, match="A llama model cannot be run on shapes alone")
    with told, counted_model(model.config, torch.float32) as fake:
        depends_on_numbers(fake, SHAPE)
