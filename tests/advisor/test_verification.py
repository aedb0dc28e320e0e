"""`verify` and `sweep` as a user runs them: results, resumption after every kind of end, bad input."""

import json
import subprocess
import sys

import pytest
import torch
from deadly import n_calls, write_reward
from policies import SUMS, TINY, model_state, task_with

import advisor
from advisor.measuring_options import MeasuringOptions
from calibration.protocol import Protocol
from probes.errors import UsageError
from probes.training import TrainingConfig

DATA = ["--data", str(SUMS), "--reward", "exact"]
QUICK = ["--steps", "3", "--prompts-per-step", "8", "--max-new-tokens", "4", "--validation", "20", "--held-out", "60"]
ONE_RATE = ["--learning-rates", "1e-3", "--seeds", "2"]


def options(**changes) -> MeasuringOptions:
    training = TrainingConfig(**{"steps": 3, "prompts_per_step": 8, **changes.pop("training", {})})
    fields = {"learning_rates": (1e-3,), "seeds": 2, "validation": 20, "held_out": 60, **changes.pop("protocol", {})}
    return MeasuringOptions(**{"protocol": Protocol(training, **fields), "max_new_tokens": 4, **changes})


def results(folder, name="verification.json") -> dict:
    """What must not depend on how the run got there."""
    found = json.loads((folder / name).read_text())
    for run in found["runs"]:
        for key in ("seconds", "peak_memory_bytes", "saved"):
            run.pop(key, None)
    return {key: found[key] for key in ("greedy", "sampled", "runs", "verdict", "protocol")}


def test_verify_writes_its_folder_and_goes_on(cli, tmp_path):
    command = ["verify", str(TINY), "--layer", "4", "--also", "0", *DATA, *QUICK, *ONE_RATE]
    command += ["--output-dir", str(tmp_path / "run")]
    code, out, _ = cli(*command)
    assert code in (0, 3)
    assert "Verification:" in out
    assert "all parameters" in out
    assert "layer 3 (middle)" in out
    names = {p.name for p in (tmp_path / "run").iterdir() if p.name != ".lock"}
    expected = {"config.json", "environment.json", "journal.jsonl", "verification.json", "report.md", "report.html"}
    assert names == expected | {"trained"}
    found = json.loads((tmp_path / "run" / "verification.json").read_text())
    assert found["schema_version"] == 1
    assert (code == 0) == (found["verdict"]["kind"] == "confirmed")
    for decoding in ("greedy", "sampled"):
        layers = found[decoding]["layers"]
        assert [(la["layer"], la["role"]) for la in layers] == [(0, "also"), (3, "middle"), (4, "pick")]
        assert all(la["seeds"] == [0, 1] and la["score_low"] <= la["score"] <= la["score_high"] for la in layers)
        assert found[decoding]["full"]["layer"] is None
    assert len(found["runs"]) == 8
    assert {len(run["rewards"]) for run in found["runs"]} == {3}
    trained = tmp_path / "run" / "trained"
    assert [p.name for p in trained.iterdir()] == ["layer-4.safetensors"]
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    again, out_again, err_again = cli(*command)
    assert (again, out_again) == (code, out)
    assert "going on" in err_again
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before
    assert [p.name for p in trained.iterdir()] == ["layer-4.safetensors"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_9_at_any_point_and_the_same_command_goes_on_with_the_same_numbers(tmp_path, workers):
    """The whole program is killed in its third run; nothing that had finished is run again."""
    calls_a_run = 3 + 4
    victim = "os.getpid()" if workers == "1" else "os.getppid()"
    at = 3 + 2 * calls_a_run + 4 if workers == "1" else calls_a_run + 4
    (tmp_path / "killed-run").mkdir()
    rewards = {
        "killed": write_reward(tmp_path / "killed-run", at, victim),
        "whole": write_reward(tmp_path, at_call=10**9),
    }

    def sweep(name: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "advisor.cli", "sweep", str(TINY), "--layers", "0-2", "--data", str(SUMS)]
        command += ["--reward", rewards[name], "--learning-rates", "1e-3", "--seeds", "1", "--workers", workers, *QUICK]
        return subprocess.run([*command, "--output-dir", str(tmp_path / name)], capture_output=True, text=True)

    assert sweep("killed").returncode == -9
    journal = (tmp_path / "killed" / "journal.jsonl").read_bytes()
    finished = journal.count(b'"kind": "run"')
    assert 1 <= finished < 4
    with (tmp_path / "killed" / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind": "run", "key": "half wri')
    assert sweep("killed").returncode in (0, 3)
    after = (tmp_path / "killed" / "journal.jsonl").read_bytes()
    assert after.startswith(journal)
    assert after.count(b'"kind": "run"') == 4
    assert sweep("whole").returncode in (0, 3)
    assert results(tmp_path / "killed", "sweep.json") == results(tmp_path / "whole", "sweep.json")
    extra = n_calls(tmp_path / "killed-run") - n_calls(tmp_path)
    assert 0 < extra < int(workers) * calls_a_run + 4  # what was under way, and the look at the base policy


def test_ctrl_c_leaves_the_model_as_found_and_goes_on(own_tiny, sums, tmp_path):
    calls, before = [], model_state(own_tiny.model)

    def reward(completions, answer, **kwargs):
        calls.append(1)
        if len(calls) == 16:
            raise KeyboardInterrupt
        return [float(c.strip() == a) for c, a in zip(completions, answer, strict=True)]

    task = task_with(sums, reward, max_reward=1.0)
    model, tokenizer = own_tiny.model, own_tiny.tokenizer
    arguments = {"layer": 4, "options": options()}
    with pytest.raises(KeyboardInterrupt):
        advisor.verify(model, tokenizer, task, output_dir=tmp_path / "a", **arguments)
    assert model_state(model) == before
    found = advisor.verify(model, tokenizer, task, output_dir=tmp_path / "a", **arguments)
    whole = advisor.verify(model, tokenizer, task, output_dir=tmp_path / "b", **arguments)
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert found.results("greedy") == whole.results("greedy")
    assert model_state(model) == before


def test_a_planted_layer_is_confirmed(own_tiny, sums):
    """Every other layer but the last does nothing and has no gradient: the pick gains, the middle layer cannot."""

    def threes(completions, **kwargs):
        return [float(text.startswith("3")) for text in completions]

    with torch.no_grad():
        for k in (0, 2, 3, 4):
            layer = own_tiny.stack.layers[k]
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight.zero_()
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight.zero_()
    training = {"steps": 30, "temperature": 1.5}
    chosen = options(training=training, protocol={"learning_rates": (3e-3,)})
    task = task_with(sums, threes)
    found = advisor.verify(own_tiny.model, own_tiny.tokenizer, task, layer=1, options=chosen)
    assert found.verdict.kind == "confirmed", found.verdict.text
    greedy = found.results("greedy")
    assert greedy["layer 1"].gain.above_zero
    assert greedy["layer 3"].gain.value == 0
    assert found.saved is None


def test_the_reference_can_be_left_out(tiny, sums):
    found = advisor.verify(tiny.model, tiny.tokenizer, sums, layer=3, options=options(reference="none"))
    assert set(found.results()) == {"layer 3"}
    assert found.results()["layer 3"].contribution is None
    assert found.results()["layer 3"].gain is not None
    assert found.as_dict()["greedy"]["full"] is None


def test_several_layers_are_trained_together(tiny, sums):
    found = advisor.verify(tiny.model, tiny.tokenizer, sums, layer=[4, 2], options=options(reference="none"))
    pick = next(r for r in found.runs if r["arm"] == "layers 2+4")
    assert pick["trained_parameters"] == 2 * found.model["layer_parameters"][2]
    assert found.as_dict()["greedy"]["layers"][0]["layer"] == [2, 4]


def test_a_recommendation_is_proven_from_its_folder(cli, tmp_path):
    run = str(tmp_path / "run")
    assert cli("recommend", str(TINY), *DATA, "--groups", "8", "--group-size", "4", "--output-dir", run)[0] == 0
    pick = json.loads((tmp_path / "run" / "ranking.json").read_text())["pick"]
    quick = [part for part in QUICK if part not in ("--max-new-tokens", "4")]
    code, out, _ = cli("verify", "--from", run, *quick, *ONE_RATE, "--reference", "none", "--json")
    found = json.loads(out)
    assert code in (0, 3)
    assert next(la for la in found["greedy"]["layers"] if "pick" in la["role"])["layer"] == pick[0]
    assert found["protocol"]["group_size"] == 4  # as the recommendation was asked
    assert len(list((tmp_path / "run").glob("verification-*/verification.json"))) == 1


def test_a_recommendation_object_proves_its_pick(sums):
    sampling = advisor.SamplingConfig(groups=8, group_size=4, max_prompts=32, max_new_tokens=4)
    rec = advisor.recommend(str(TINY), None, sums, sampling=sampling)
    training = TrainingConfig(steps=2, prompts_per_step=8, group_size=4)
    proof = rec.verify(seeds=1, learning_rates=(1e-3,), training=training)
    assert proof.roles["full"] == ["full"]
    assert proof.roles[f"layer {rec.pick[0]}"][0] == "pick"
    assert proof.protocol["max_new_tokens"] == 4
    assert proof.as_dict()["verdict"]["kind"] == proof.verdict.kind


def test_recommend_and_verify_in_one_command(cli, tmp_path):
    command = ["recommend", str(TINY), *DATA, "--groups", "8", "--verify", *QUICK, *ONE_RATE, "--json"]
    code, out, _ = cli(*command, "--output-dir", str(tmp_path / "run"))
    found = json.loads(out)
    assert code in (0, 3)
    assert found["verification"]["kind"] == "verification"
    assert (code == 0) == (found["verification"]["verdict"]["kind"] == "confirmed")


def test_a_budget_sets_the_steps(tiny, sums, tmp_path):
    chosen = options(budget=600.0, training={"warmup_steps": 2})
    found = advisor.verify(tiny.model, tiny.tokenizer, sums, layer=3, options=chosen)
    assert found.protocol["steps"] == 3  # never more than was asked for
    with pytest.raises(UsageError, match=r"budget of 0 s is too small for one step of each of the 4 runs"):
        advisor.verify(tiny.model, tiny.tokenizer, sums, layer=3, options=options(budget=1e-3))


BAD = {
    "layer out of range": (["verify", str(TINY), "--layer", "6", *DATA], 2, "Layer 6 is out of range.*0 to 5"),
    "layer that is none": (["verify", str(TINY), "--layer", "x", *DATA], 2, "not a list of layers"),
    "sweep out of range": (["sweep", str(TINY), "--layers", "2,9", *DATA], 2, "Layer 9 is out of range"),
    "no steps": (["verify", str(TINY), "--layer", "3", *DATA, "--steps", "0"], 2, "steps 0 is not allowed"),
    "no seeds": (["verify", str(TINY), "--layer", "3", *DATA, "--seeds", "0"], 2, "0 seeds are not allowed"),
    "no rates": (["verify", str(TINY), "--layer", "3", *DATA, "--learning-rates", "fast"], 2, "not a list of numbers"),
    "budget too small": (
        ["verify", str(TINY), "--layer", "3", *DATA, "--budget", "1s"],
        2,
        "budget of 1 s is too small",
    ),
    "budget that is none": (["verify", str(TINY), "--layer", "3", *DATA, "--budget", "soon"], 2, "30m"),
    "too few held out": (
        ["verify", str(TINY), "--layer", "3", *DATA, "--held-out", "20"],
        2,
        "20 held-out prompts are too few.*takes 31 prompts, 0.2 takes 68, 0.1 takes 271",
    ),
    "too few for a width": (
        ["recommend", str(TINY), *DATA, "--verify", "--interval-width", "0.1"],
        2,
        "100 held-out prompts are too few.*a width of 0.1 takes 271",
    ),
    "nothing to prove": (["verify", str(TINY), *DATA], 2, "Say what to prove"),
    "no model": (["verify", "--layer", "3"], 2, "MODEL is missing"),
    "no such run": (["verify", "--from", "nowhere"], 2, "holds no recommendation"),
    "unknown engine": (["verify", str(TINY), "--layer", "3", *DATA, "--engine", "tlr"], 2, "Did you mean 'trl'"),
    "trl option alone": (["verify", str(TINY), "--layer", "3", *DATA, "--trl-option", "a=1"], 2, "need --engine trl"),
    "static": (["recommend", str(TINY), "--effort", "static", "--verify"], 2, "--effort static has not"),
    "no reference": (["verify", str(TINY), "--layer", "3", *DATA, "--reference", "half"], 2, "Available: full, none"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(cli, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    command, expected, pattern = BAD[case]
    code, out, err = cli(*command)
    import re

    errors = [line for line in err.splitlines() if line.startswith("Error:")]
    assert (code, out) == (expected, "")
    assert len(errors) == 1
    assert re.search(pattern, errors[0])
    assert "Traceback" not in err


def test_a_reward_without_spread_at_the_base_policy_ends_with_a_verdict(cli, tmp_path):
    (tmp_path / "flat.py").write_text("def reward(completions, **kwargs):\n    return [0.5] * len(completions)\n")
    reward = f"{tmp_path / 'flat.py'}:reward"
    command = ["verify", str(TINY), "--layer", "3", "--data", str(SUMS), "--reward", reward, *QUICK]
    code, out, _ = cli(*command, "--output-dir", str(tmp_path / "run"))
    assert code == 3
    assert "Nothing was trained." in out
    assert "All 512 sampled completions score 0.5" in " ".join(out.split())
    found = json.loads((tmp_path / "run" / "verification.json").read_text())
    assert found["verdict"]["kind"] == "constant_reward"
    assert found["runs"] == []
