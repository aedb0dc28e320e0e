"""What a step costs, said without the weights."""

import json
import shutil
from dataclasses import replace

import pytest
import transformers
from click.testing import CliRunner
from policies import TINY, make_model

from advisor.cli.estimate import command
from advisor.cli.settings import Settings
from advisor.estimate import estimate
from probes.cost import Machine, StepShape
from probes.errors import UsageError

SHAPE = StepShape(prompts=2, group_size=4, prompt_tokens=6, max_new_tokens=8)
SMALL = ["--prompts", "2", "--group-size", "4", "--prompt-tokens", "6", "--max-new-tokens", "8"]
MACHINE = ["--tflops", "100", "--bandwidth", "1000"]


def run(*arguments: str):
    """Output of the command; raises what it raises."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(command, list(arguments), obj=Settings())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def only_config(tmp_path):
    """A model's folder without weights and without a tokenizer."""
    shutil.copy(TINY / "config.json", tmp_path)
    return str(tmp_path)


def test_only_the_configuration_is_needed(only_config):
    found = json.loads(run(only_config, *SMALL, "--json"))
    assert found["schema_version"] == 1
    assert found["timed"] == "measured"
    full, middle, last, lora = found["arms"]
    n = found["model"]["n_layers"]
    assert [arm["layer"] for arm in found["arms"]] == [None, n // 2, n - 1, n // 2]
    assert lora["rank"] == 16
    assert full["trainable"] == found["model"]["parameters"]
    assert full["faster"] == full["backward_of_full"] == full["share"] == 1
    for arm in (middle, last, lora):
        assert arm["trainable"] < full["trainable"]
        assert arm["bytes"]["peak"] < full["bytes"]["peak"]
        assert arm["seconds"]["generation"] == full["seconds"]["generation"] > 0
    assert last["backward_flops"] < middle["backward_flops"] < full["backward_flops"]


def test_counts_are_those_of_the_model():
    model = make_model("Llama")
    found = estimate(model, layers=[1], shape=SHAPE, rank=None, timed=False)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weights == 4 * found.parameters + sum(b.numel() * b.element_size() for b in model.buffers())
    assert [arm.name for arm in found.arms] == ["full", "layer 1"]
    assert found.timed == "not"
    assert found.arms[1].seconds is None
    for arm in found.arms:
        assert arm.peak == found.weights + arm.optimizer + max(found.sampling, arm.training)
        assert arm.training >= arm.activations


def test_operations_are_of_the_whole_step():
    model = make_model("Llama")
    whole = estimate(model, layers=[1], shape=SHAPE, timed=False)
    in_parts = estimate(model, layers=[1], shape=replace(SHAPE, rows_per_pass=2), timed=False)
    for a, b in zip(whole.arms, in_parts.arms, strict=True):
        assert a.backward_flops == b.backward_flops
        assert a.activations > b.activations


def test_table_fits_a_terminal(only_config):
    out = run(only_config, *SMALL, *MACHINE, "--steps", "100")
    assert max(map(len, out.splitlines())) <= 80
    for words in ("trainable parameters", "peak memory", "generation s", "100 steps", "LoRA on", "100 TFLOP/s"):
        assert words in out
    assert "Generation is" in out


def test_many_layers_come_in_blocks(only_config):
    out = run(only_config, *SMALL, *MACHINE, "--layers", "0-5", "--no-lora")
    assert max(map(len, out.splitlines())) <= 80
    assert "LoRA" not in out
    assert all(f"layer {k}" in out for k in range(6))


def test_a_machine_of_twice_the_speed_takes_half_the_time():
    model = make_model("Llama")
    one, two = (estimate(model, shape=SHAPE, machine=Machine(n * 1e12, n * 1e10)) for n in (1, 2))
    for a, b in zip(one.arms, two.arms, strict=True):
        assert a.seconds.step == pytest.approx(2 * b.seconds.step)
        assert a.peak == b.peak
    assert one.generation_share == pytest.approx(two.generation_share)


def test_run_time_is_that_of_all_steps(only_config):
    found = json.loads(run(only_config, *SMALL, *MACHINE, "--steps", "7", "--json"))
    for arm in found["arms"]:
        assert arm["run_seconds"] == pytest.approx(7 * arm["seconds"]["step"])


def test_from_a_recommendation(cli, tmp_path):
    code, _, _ = cli("recommend", str(TINY), "--effort", "static", "--output-dir", str(tmp_path / "out"))
    assert code == 0
    pick = json.loads((tmp_path / "out" / "ranking.json").read_text())["pick"]
    found = json.loads(run("--from", str(tmp_path / "out"), *SMALL, "--no-time", "--json"))
    assert [arm["layer"] for arm in found["arms"]] == [None, *pick, pick[0]]
    assert found["model"]["name"] == str(TINY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give MODEL"),
        ([str(TINY), "--from", "x"], "not both"),
        (["nowhere/at/all"], "no file or folder"),
        ([str(TINY), "--prompts", "0"], "prompts 0 is not allowed"),
        ([str(TINY), "--group-size", "0"], "group size 0 is not allowed"),
        ([str(TINY), "--max-new-tokens", "0"], "max new tokens 0 is not allowed"),
        ([str(TINY), "--prompt-tokens", "100000"], "built for"),
        ([str(TINY), "--rank", "0"], "rank 0 is not allowed"),
        ([str(TINY), "--steps", "0"], "0 steps are not allowed"),
        ([str(TINY), "--layers", "99"], "Layer 99 is out of range"),
        ([str(TINY), "--layers", "middle"], "not a list of layers"),
        ([str(TINY), "--dtype", "float8"], "Unknown dtype"),
        ([str(TINY), "--optimizer", "adam"], "Did you mean 'adamw'"),
        ([str(TINY), "--tflops", "3"], "give both"),
        ([str(TINY), "--tflops", "0", "--bandwidth", "1"], "must be above 0"),
    ],
)
def test_bad_input_is_told(arguments, said):
    with pytest.raises(UsageError, match=said):
        run(*arguments)


def test_too_little_memory_is_told(monkeypatch):
    monkeypatch.setattr("advisor.estimate.available_memory_bytes", lambda device: 1000)
    with pytest.raises(UsageError, match="--no-time"):
        estimate(make_model("Llama"), shape=SHAPE)


def test_half_precision_follows_the_checkpoint_and_the_machine():
    model = make_model("Llama")
    model.config.dtype = "float16"
    assert estimate(model, shape=SHAPE, timed=False, device="cpu").dtype == "float32"
    assert estimate(model, shape=SHAPE, machine=Machine(1e12, 1e10)).dtype == "float16"
    assert estimate(model, shape=SHAPE, timed=False, dtype="bfloat16").dtype == "bfloat16"


def test_no_memory_is_taken_for_a_large_model():
    """8 B parameters are counted in seconds, on any machine."""
    config = transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
    )
    import torch

    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    found = estimate(skeleton, layers=[16], shape=SHAPE, rank=None, dtype="bfloat16", machine=Machine(4e14, 3e12))
    assert 8.0e9 < found.parameters < 8.1e9
    assert found.full.gradients == 4 * found.parameters
    assert found.arms[1].peak < found.full.peak / 5
