import pytest
import torch
from policies import make_model
from safetensors import safe_open

from probes.errors import UsageError
from probes.training import Trainer, TrainingConfig
from probes.training.saved_layers import load_layers, save_layers


def test_a_trained_layer_is_put_into_the_model_with_one_call(tiny, own_tiny, sums, tmp_path):
    file = tmp_path / "trained" / "layer-3.safetensors"
    with Trainer(tiny, sums, TrainingConfig(steps=1, learning_rate=1e-3), layers=[3]) as trainer:
        trainer.run()
        save_layers(file, trainer.weights(), tiny.dtype, {"run": "layer 3, seed 0"})
        ids = torch.tensor([tiny.tokenizer("12+3=")["input_ids"]])
        expected = tiny.model(ids).logits
    assert not torch.equal(own_tiny.model(ids).logits, expected)
    names = load_layers(own_tiny.model, file)
    assert torch.equal(own_tiny.model(ids).logits, expected)
    assert len(names) == 9
    assert all(name.startswith("model.layers.3.") for name in names)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"run": "layer 3, seed 0"}
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_another_models_layer_is_refused_and_nothing_changes(tiny, tmp_path):
    file = tmp_path / "x.safetensors"
    good = {f"model.layers.3.{n}": torch.zeros_like(p) for n, p in tiny.stack.layers[3].named_parameters()}
    before = tiny.stack.layers[3].mlp.up_proj.weight.sum()
    save_layers(file, good | {"transformer.h.3.x": torch.zeros(2)}, torch.float32, {})
    with pytest.raises(UsageError, match=r"transformer\.h\.3\.x.*another model"):
        load_layers(tiny.model, file)
    save_layers(file, good | {"model.layers.3.mlp.up_proj.weight": torch.zeros(2, 2)}, torch.float32, {})
    with pytest.raises(UsageError, match="has shape"):
        load_layers(tiny.model, file)
    assert tiny.stack.layers[3].mlp.up_proj.weight.sum() == before
    (tmp_path / "y.safetensors").write_text("no")
    with pytest.raises(UsageError, match="not a safetensors file"):
        load_layers(make_model("Llama"), tmp_path / "y.safetensors")
