import pytest
import torch
from policies import TINY, make_model, model_state
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from probes.errors import UsageError
from probes.policy import Policy, find_files, load_policy
from probes.progress import Progress


def test_load_from_folder(tiny):
    assert (tiny.n_layers, tiny.dtype, tiny.context_length, tiny.eos_ids) == (6, torch.float32, 256, [1])
    assert not tiny.model.training


def test_dtype_and_half_precision_on_cpu(tmp_path):
    assert load_policy(str(TINY), device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    half = load_policy(str(TINY), device="cpu", dtype="float16")
    half.model.save_pretrained(tmp_path)
    half.tokenizer.save_pretrained(tmp_path)
    assert load_policy(str(tmp_path), device="cpu").dtype == torch.float32


def test_loading_leaves_a_given_model_as_found(tiny):
    model = make_model("Llama").train()
    before = model_state(model)
    Policy.from_objects(model, tiny.tokenizer)
    assert model_state(model) == before


def test_fingerprint_tells_weights_apart(tiny, own_tiny):
    assert tiny.fingerprint() == own_tiny.fingerprint()
    first, second = (Policy.from_objects(make_model("Llama", seed), tiny.tokenizer) for seed in (0, 1))
    assert first.fingerprint() != second.fingerprint()


def test_encoders_are_refused(tiny, tmp_path):
    bert = BertLMHeadModel(
        BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    )
    with pytest.raises(UsageError, match="encoder"):
        Policy.from_objects(bert.eval(), tiny.tokenizer)
    T5ForConditionalGeneration(
        T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    ).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="not a causal language model"):
        load_policy(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [("./nowhere", "no file or folder"), ("weights.gguf", "no file or folder"), ("a/b/c", "no file or folder")],
)
def test_names_that_lead_nowhere(name, message):
    with pytest.raises(UsageError, match=message):
        find_files(name, Progress())


def test_unknown_hub_name_is_one_clear_error(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UsageError, match="Unknown model 'someone/model'.*local folder"):
        find_files("someone/model", Progress())


def test_remote_code_is_off_unless_asked_for(tmp_path, tiny):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    config = (
        (tmp_path / "config.json")
        .read_text()
        .replace(
            '"model_type": "llama"',
            '"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}',
        )
    )
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "own.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(UsageError, match="--trust-remote-code"):
        load_policy(str(tmp_path))


def test_unusable_device():
    with pytest.raises(UsageError, match="Device 'warp'"):
        load_policy(str(TINY), device="warp")


def test_missing_tensors_are_not_made_up(tmp_path, tiny):
    from safetensors.torch import load_file, save_file

    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="lacks 1 of the model's tensors.*layers.3.mlp.up_proj"):
        load_policy(str(tmp_path))


@pytest.mark.parametrize("trusted", [False, True])
def test_code_is_fetched_from_the_hub_only_if_trusted(monkeypatch, tmp_path, trusted):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, allow_patterns: asked.extend(allow_patterns) or tmp_path
    )
    find_files("someone/model", Progress(), trust_remote_code=trusted)
    assert ("*.py" in asked) == trusted
    assert "*.safetensors" in asked
    asked.clear()
    find_files("someone/model", Progress(), weights=False)
    assert "*.safetensors" not in asked


def test_a_gated_model_is_said_to_be_gated(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def gated(name, **options):
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    with pytest.raises(UsageError, match="'some/model' is gated.*log in"):
        load_policy("some/model")
