"""An export from end to end: its files, a training script that runs, rewards as targets call them."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import types

import pytest
import torch
import yaml
from policies import SUMS, TINY, make_model
from safetensors.torch import load_file

import advisor
from advisor.exports import TARGETS, export
from advisor.exports.material import Material
from probes.tasks import load_task

QUICK = advisor.SamplingConfig(groups=8, max_prompts=32, max_new_tokens=4)
OWN = """
async def graded(prompts, completions, answer, **kwargs):
    assert all(isinstance(p, str) for p in prompts)
    return [0.25 if c.strip() == a else None for c, a in zip(completions, answer)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a recommendation."""
    place = tmp_path_factory.mktemp("rec")
    task = load_task(data=str(SUMS), reward="exact")
    assert advisor.recommend(str(TINY), task=task, sampling=QUICK, device="cpu", output_dir=place).pick
    return place


def module(file, name="exported"):
    """A file of an export, imported as its target would."""
    spec = importlib.util.spec_from_file_location(name, file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(autouse=True)
def _leaves_no_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("reward", "own_reward"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_from_the_command_line(cli, folder, name):
    code, out, _ = cli("export", "--from", str(folder), "--to", name)
    assert code == 0
    pick = advisor.Recommendation.load(folder).pick
    assert out.startswith("trains ")
    assert f"in layers {{{pick[0]}}}" in out.splitlines()[0]
    assert "Checked with" in out
    files = [file for file in (folder / "exports" / name).iterdir() if file.name != ".exported.json"]
    assert files
    assert all(str(file) in out for file in files)
    found = json.loads(cli("export", "--from", str(folder), "--to", name, "--json", "--quiet")[1])
    assert found["says"] == out.splitlines()[0]
    assert {str(file) for file in files} == set(found["files"])


def test_only_training_prompts_are_written(folder, tmp_path):
    rec = advisor.Recommendation.load(folder)
    task = load_task(data=str(SUMS), reward="exact")
    rec.export("trl", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert rows == list(task.train)


def test_the_trl_script_trains_the_pick_and_nothing_else(folder, tmp_path):
    rec = advisor.Recommendation.load(folder)
    rec.export("trl", tmp_path)
    script = (tmp_path / "train.py").read_text()
    assert "max_steps=30" in script
    short = script.replace("max_steps=30", "max_steps=2")
    short = short.replace("gradient_accumulation_steps=16", "gradient_accumulation_steps=1")
    (tmp_path / "train.py").write_text(short.replace("learning_rate=0.0001", "learning_rate=0.01"))
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = load_file(TINY / "model.safetensors"), load_file(tmp_path / "trained" / "model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name].to(before[name].dtype))}
    assert changed
    assert all(name.startswith(f"model.layers.{rec.pick[0]}.") for name in changed)


def test_trl_s_own_command_trains_lora_of_the_said_size(folder, tmp_path):
    found = advisor.Recommendation.load(folder).export("trl", tmp_path, lora=True)
    config = yaml.safe_load((tmp_path / "trl.yaml").read_text())
    config |= {"max_steps": 2, "gradient_accumulation_steps": 1, "use_cpu": True, "bf16": False, "learning_rate": 0.01}
    (tmp_path / "trl.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "trl.scripts.grpo", "--config", "trl.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    adapter = load_file(tmp_path / "trained" / "adapter_model.safetensors")
    assert f"trains {sum(w.numel() for w in adapter.values()):,} parameters" in found.says
    assert any(w.abs().max() > 0 for name, w in adapter.items() if "lora_B" in name)  # which begin at 0


def test_trl_widens_bfloat16_weights(folder, tmp_path):
    """Of a checkpoint in bfloat16 the trained tensors, and only those, become float32."""
    advisor.Recommendation.load(folder).export("trl", tmp_path)
    lines = (tmp_path / "train.py").read_text().split("train_dataset =")[0].split("MODEL = ")[1].splitlines()[3:]
    model = make_model("Llama", num_hidden_layers=6).bfloat16()
    n = sum(p.numel() for p in model.model.layers[0].parameters())
    source = re.sub(r"n_trained == \d+", f"n_trained == {n}", "\n".join(lines))
    pick = advisor.Recommendation.load(folder).pick[0]
    exec(source, {"re": re, "model": model})
    wide = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert wide == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(f"model.layers.{pick}.") for name in wide)


def test_an_own_reward_and_chat_prompts(folder, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    rec = advisor.Recommendation.load(folder)
    rec.task["origin"]["reward"] = f"{tmp_path / 'own.py'}:graded"
    rec.protocol["prompt_style"] = "chat"
    rec.export("trl", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert row["prompt"][0]["role"] == "user"
    reward = module(tmp_path / "out" / "reward.py").reward
    said = [[{"role": "assistant", "content": text}] for text in (row["answer"], "no")]
    assert reward([row["prompt"]] * 2, said, answer=[row["answer"]] * 2) == [0.25, None]
    assert reward([row["prompt"]], [row["answer"]], answer=[row["answer"]]) == [0.25]


def test_nested_and_missing_columns_survive(tmp_path, folder):
    rows = [{"prompt": f"{k}?", "answer": str(k), "tests": [{"in": k}, {"out": None}]} for k in range(20)]
    rows += [{"prompt": f"{k}!", "answer": str(k)} for k in range(20)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.py").write_text(
        "def first(completions, tests, **_):\n    return [t and t[0]['in'] for t in tests]\n"
    )
    rec = advisor.Recommendation.load(folder)
    rec.task["origin"].update(data=str(tmp_path / "data.jsonl"), reward=f"{tmp_path / 'own.py'}:first")
    rec.export("trl", tmp_path / "out")
    found = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    row = next(row for row in found if row["prompt"].endswith("?"))
    without = next(row for row in found if row["prompt"].endswith("!"))
    reward = module(tmp_path / "out" / "reward.py").reward
    assert reward([row["prompt"]], ["x"], answer=[row["answer"]], tests=[row["tests"]]) == [int(row["answer"])]
    assert reward([without["prompt"]], ["x"], answer=["1"], tests=[without["tests"]]) == [None]


def test_a_new_export_leaves_nothing_of_the_one_before(folder, tmp_path):
    rec = advisor.Recommendation.load(folder)
    rec.export("trl", tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    rec.export("trl", tmp_path, with_data=False)
    assert {p.name for p in tmp_path.iterdir()} == {"train.py", "trl.yaml", "mine.txt", ".exported.json"}


def test_verl_calls_the_reward_one_completion_at_a_time(folder, tmp_path):
    advisor.Recommendation.load(folder).export("verl", tmp_path)
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    score = module(tmp_path / "verl_reward.py").compute_score
    truth = row["reward_model"]["ground_truth"]
    assert score(row["data_source"], truth, truth, row["extra_info"]) == 1.0
    assert score(row["data_source"], "no", truth, row["extra_info"]) == 0.0
    assert row["prompt"][0]["role"] == "user"


def test_openrlhf_calls_the_reward_with_whole_texts(folder, tmp_path):
    advisor.Recommendation.load(folder).export("openrlhf", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()[:2]]
    answers = [json.loads(row["label"])["answer"] for row in rows]
    reward = module(tmp_path / "openrlhf_reward.py").reward_func
    prompts = [row["prompt"] for row in rows]
    queries = [prompts[0] + answers[0], prompts[1] + "no"]
    assert reward(queries, prompts, [row["label"] for row in rows])["rewards"].tolist() == [1.0, 0.0]


def test_openrlhf_decodes_special_tokens_too(folder, tmp_path):
    """Its queries are decoded with them: one before the prompt, one after the answer."""
    advisor.Recommendation.load(folder).export("openrlhf", tmp_path)
    exported = module(tmp_path / "openrlhf_reward.py")
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    answer, (token, *_) = json.loads(row["label"])["answer"], exported.special_tokens()
    query = f"{token}{row['prompt']}{answer}{token}"
    assert exported.completion(query, row["prompt"]) == answer
    assert exported.reward_func([query], [row["prompt"]], [row["label"]])["rewards"].tolist() == [1.0]


def test_ms_swift_calls_the_reward_as_a_plug_in(folder, tmp_path, monkeypatch):
    swift, rewards = types.ModuleType("swift"), types.ModuleType("swift.rewards")
    rewards.ORM, rewards.orms = object, {}
    monkeypatch.setitem(sys.modules, "swift", swift)
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    advisor.Recommendation.load(folder).export("ms-swift", tmp_path)
    module(tmp_path / "plugin.py")
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert row.pop("messages")[0]["role"] == "user"
    columns = {name: [value] for name, value in row.items()}
    assert rewards.orms["advisor_reward"]()([row["answer"]], **columns) == [1.0]


def test_axolotl_finds_reward_and_rows(folder, tmp_path, monkeypatch):
    advisor.Recommendation.load(folder).export("axolotl", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = module(tmp_path / "axolotl_reward.py")
    assert found.reward(["1+1="], ["2"], answer=["2"]) == [1.0]
    same, options = found.rows({})
    assert same({"prompt": "a"}) == {"prompt": "a"}
    assert options == {}


def test_llama_factory_gets_prompts_with_answers(folder, tmp_path):
    found = advisor.Recommendation.load(folder).export("llama-factory", tmp_path)
    about = json.loads((tmp_path / "dataset_info.json").read_text())["advisor"]
    pair = json.loads((tmp_path / about["file_name"]).read_text())[0]
    assert set(pair) == set(about["columns"].values())
    assert any("no GRPO stage" in note for note in found.notes)


def test_static_effort_leaves_a_place_for_data(tmp_path):
    rec = advisor.recommend(str(TINY), effort="static", output_dir=tmp_path / "run")
    for name in TARGETS:
        found = rec.export(name)
        assert any("No data and reward" in note for note in found.notes)
    text = (tmp_path / "run" / "exports" / "trl" / "train.py").read_text()
    assert "YOUR.jsonl" in text
    compile(text, "train.py", "exec")
    assert Material.of(rec).rows is None


def test_what_lora_leaves_out_of_a_mixture_of_experts_is_said(folder, tmp_path):
    rec, model = advisor.Recommendation.load(folder), make_model("Mixtral", num_hidden_layers=6)
    experts = sum(p.numel() for n, p in model.named_parameters() if f"layers.{rec.pick[0]}.mlp.experts" in n)
    assert experts
    notes = rec.export("peft", tmp_path, model=model).notes
    assert any(f"leaves out {experts:,} parameters" in note for note in notes)
    assert not any("leaves out" in note for note in rec.export("trl", tmp_path, model=model).notes)


def test_names_with_spaces_and_quotes_reach_the_program_whole(folder, tmp_path):
    rec = advisor.Recommendation.load(folder)
    place = tmp_path / "it's a model"
    shutil.copytree(TINY, place)
    rec.model["name"] = str(place)
    for name in ("openrlhf", "ms-swift", "verl"):
        rec.export(name, tmp_path / name)
        words = shlex.split((tmp_path / name / "train.sh").read_text().replace("\\\n", " "), comments=True)
        told = f'actor_rollout_ref.model.path="{place}"' if name == "verl" else str(place)  # quoted for Hydra too
        assert told in words


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--to", "axolotle"], "Did you mean 'axolotl'"),
        (["--to", "spectrum", "--lora"], "leave out --lora"),
        (["--to", "peft", "--rank", "0"], "at least 1"),
    ],
)
def test_wrong_usage(cli, folder, options, told):
    code, out, err = cli("export", "--from", str(folder), *options)
    assert code == 2
    assert out == ""
    assert told in " ".join(err.split())


def test_no_recommendation_no_pick_and_moved_data_are_said(cli, folder, tmp_path):
    assert "holds no recommendation" in cli("export", "--from", str(tmp_path), "--to", "peft")[2]
    rec = advisor.Recommendation.load(folder)
    rec.task["origin"]["data"] = "gone.jsonl"
    with pytest.raises(advisor.UsageError, match=r"gone\.jsonl.*--no-data"):
        export(rec, "trl", tmp_path)
    assert export(rec, "trl", tmp_path, with_data=False).files
    rec.pick.clear()
    with pytest.raises(advisor.UsageError, match="no pick to export"):
        export(rec, "trl", tmp_path)
