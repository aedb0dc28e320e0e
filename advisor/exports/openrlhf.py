"""OpenRLHF: a command line with LoRA on the layers, the one way in which it can be told layers."""

import json
import shlex

from advisor.exports.material import jsonl
from advisor.exports.pick import Pick
from advisor.exports.target import LORA, Order, Written

CHECKED_WITH = "OpenRLHF 0.11.2: its argument parser and validation; PEFT 0.21.2 for the list of modules"
_SYNC = (
    "OpenRLHF 0.11.2 hands weights to vLLM under PEFT's names and unmerged (trainer/ray/ppo_actor.py), which vLLM's "
    "loaders do not know: read in its source, not run. See that the reward rises, or use another framework."
)


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (LORA,)


def write(order: Order) -> Written:
    """``train.sh``; modules are a list there, so full names."""
    m = order.material
    options = {
        "actor.model_name_or_path": m.model,
        "algo.advantage.estimator": "group_norm",
        "ds.lora.rank": order.rank,
        "ds.lora.alpha": order.alpha,
        "ds.lora.target_modules": list(order.pick.linear),
        "rollout.batch_size": m.prompts_per_step,
        "rollout.n_samples_per_prompt": m.group_size,
        "rollout.max_new_tokens": m.max_new_tokens,
        "rollout.temperature": m.temperature,
        "train.num_episodes": m.episodes,
        "train.batch_size": m.prompts_per_step * m.group_size,
        "train.max_epochs": 1,
        "actor.adam.lr": m.rate,
        "actor.lr_scheduler": "constant_with_warmup",
        "algo.kl.init_coef": 0,
        "actor.num_gpus_per_node": 1,
        "vllm.num_engines": 1,
    }
    flags = ["--train.colocate_all", "--vllm.enable_sleep", "--ds.enable_sleep"]  # one GPU for all of it
    mine, files = "# --data.prompt_dataset and --reward.remote_url are yours to add\n", {}
    if m.rows is not None:
        options |= {"data.prompt_dataset": "train.jsonl", "data.input_key": "prompt", "data.label_key": "label"}
        options |= {"reward.remote_url": "openrlhf_reward.py"}
        flags += ["--data.apply_chat_template"] if isinstance(m.rows[0]["prompt"], list) else []
        rows = [{"prompt": row["prompt"], "label": json.dumps(row, ensure_ascii=False)} for row in m.rows]
        files = {"train.jsonl": jsonl(rows), **m.reward_files, "openrlhf_reward.py": f"{_REWARD}{m.model!r}\n"}
        mine = ""
    told = " \\\n  ".join([f"--{name} {_quoted(value)}" for name, value in options.items()] + flags)
    text = f"{order.header}{mine}python -m openrlhf.cli.train_ppo_ray \\\n  {told}\n"
    return Written({"train.sh": text, **files}, "bash train.sh", [_SYNC])


def _quoted(value) -> str:
    return shlex.join(map(str, value if isinstance(value, list) else [value]))


_REWARD = '''"""The reward as OpenRLHF calls it: whole texts with special tokens, prompts in front of completions."""

import functools
import json
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))
from reward import reward  # noqa: E402


def reward_func(queries, prompts, labels, **kwargs):
    """Scores of the completions; one that cannot be scored counts 0."""
    rows = [json.loads(label) for label in labels]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    completions = [completion(query, prompt) for query, prompt in zip(queries, prompts)]
    found = reward(prompts=[row["prompt"] for row in rows], completions=completions, **columns)
    scores = torch.tensor([value or 0.0 for value in found])
    return {"rewards": scores, "scores": scores, "extra_logs": {}}


def completion(query, prompt):
    """What follows the prompt, which may itself follow a token of the tokenizer's, without the end of sequence."""
    text = query[max(0, query.find(prompt)) + len(prompt) :]
    for token in special_tokens():
        text = text.replace(token, "")
    return text


@functools.cache
def special_tokens():
    return AutoTokenizer.from_pretrained(MODEL).all_special_tokens


MODEL = '''
