import gguf
import numpy as np
import pytest
import torch
from policies import ARCHITECTURES, TINY, make_model
from safetensors.torch import load_file, save_file

from probes.checkpoint import LoadedWeights, open_weights
from probes.errors import UsageError
from probes.policy import ModelFiles, Policy


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_files_give_the_same_tensors_as_the_model(name, tmp_path, tiny):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    opened = open_weights(ModelFiles(name, tmp_path))
    loaded = LoadedWeights.of(Policy.from_objects(model, tiny.tokenizer))
    assert (opened.n_layers, opened.prefix, opened.sizes) == (loaded.n_layers, loaded.prefix, loaded.sizes)
    for k in range(opened.n_layers):
        from_file = sum(t.double().square().sum().item() for t in opened.read(k).values())
        from_model = sum(t.double().square().sum().item() for t in loaded.read(k).values())
        assert from_file == pytest.approx(from_model)


def test_prefix_dropped_in_the_file_and_sharded_index(tmp_path):
    model = make_model("GPT2")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    sharded = open_weights(ModelFiles("x", tmp_path)).read(2)
    assert torch.equal(sharded["mlp.c_fc.weight"], model.transformer.h[2].mlp.c_fc.weight)

    tensors = {}
    for file in tmp_path.glob("*.safetensors"):
        tensors |= {name.removeprefix("transformer."): t for name, t in load_file(file).items()}
        file.unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(open_weights(ModelFiles("x", tmp_path)).read(2)["mlp.c_fc.weight"], sharded["mlp.c_fc.weight"])


def test_layer_1_is_not_layer_10(tmp_path):
    model = make_model("Llama", num_hidden_layers=12)
    model.save_pretrained(tmp_path)
    weights = open_weights(ModelFiles("x", tmp_path))
    assert set(weights.read(1)) == set(weights.read(10)) == {n for n, _ in model.model.layers[1].named_parameters()}
    assert torch.equal(weights.read(1)["mlp.up_proj.weight"], model.model.layers[1].mlp.up_proj.weight)


def test_gguf_layers(tmp_path):
    path, rng = tmp_path / "m.gguf", np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    tensors = {f"blk.{k}.ffn_up.weight": rng.normal(size=(32, 16)).astype(np.float32) for k in range(11)}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    weights = open_weights(ModelFiles("m", path))
    assert (weights.n_layers, weights.sizes) == (11, [512] * 11)
    np.testing.assert_array_equal(weights.read(10)["ffn_up.weight"], tensors["blk.10.ffn_up.weight"])
    assert list(weights.read(1)) == ["ffn_up.weight"]


def test_bad_files(tmp_path):
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    with pytest.raises(UsageError, match="no safetensors"):
        open_weights(ModelFiles("x", tmp_path))
    save_file({"other.0.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"model\.layers\.0"):
        open_weights(ModelFiles("x", tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(UsageError, match="cannot be read"):
        open_weights(ModelFiles("x", tmp_path))
    (tmp_path / "m.gguf").write_bytes(b"not gguf")
    with pytest.raises(UsageError, match="GGUF"):
        open_weights(ModelFiles("x", tmp_path / "m.gguf"))
