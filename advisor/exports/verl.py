"""verl: a command line with LoRA on the layers, the one way in which it can be told layers."""

import json
import shlex

from advisor.exports.material import as_messages, jsonl
from advisor.exports.pick import Pick
from advisor.exports.target import LORA, Order, Written

CHECKED_WITH = "verl 0.9.1: its configuration, composed by Hydra; PEFT 0.21.2 for the pattern"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (LORA,)


def write(order: Order) -> Written:
    """``train.sh`` with Hydra overrides; a quoted string is a pattern there, a list would be names."""
    m = order.material
    options = {
        "algorithm.adv_estimator": "grpo",
        "actor_rollout_ref.model.path": json.dumps(m.model),  # a string that Hydra takes as it is
        "actor_rollout_ref.model.lora_rank": order.rank,
        "actor_rollout_ref.model.lora_alpha": order.alpha,
        "actor_rollout_ref.model.target_modules": f'"{order.pick.linear_regex}"',
        "actor_rollout_ref.actor.optim.lr": m.rate,
        "actor_rollout_ref.actor.ppo_mini_batch_size": m.prompts_per_step,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": m.group_size,
        "actor_rollout_ref.actor.fsdp_config.use_orig_params": True,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.load_format": "safetensors",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": m.group_size,
        "actor_rollout_ref.rollout.n": m.group_size,
        "actor_rollout_ref.rollout.temperature": m.temperature,
        "data.train_batch_size": m.prompts_per_step,
        "data.max_response_length": m.max_new_tokens,
        "trainer.total_training_steps": m.steps,
        "trainer.n_gpus_per_node": 1,
        "trainer.logger": "[console]",
    }
    files, mine = {}, "# data.train_files, data.val_files and reward.custom_reward_function.path are yours to add\n"
    if m.rows is not None:
        options |= {"data.train_files": "train.jsonl", "data.val_files": "held_out.jsonl"}
        options |= {"reward.custom_reward_function.path": "verl_reward.py"}
        parts = {"train.jsonl": m.rows, "held_out.jsonl": m.held_out}
        files = {name: jsonl([_row(m.task, row) for row in rows]) for name, rows in parts.items()}
        files |= {**m.reward_files, "verl_reward.py": _REWARD}
        mine = ""
    told = " \\\n  ".join(shlex.quote(f"{name}={value}") for name, value in options.items())
    text = f"{order.header}{mine}python -m verl.trainer.main_ppo \\\n  {told}\n"
    return Written({"train.sh": text, **files}, "bash train.sh")


def _row(task: str, row: dict) -> dict:
    return {
        "data_source": task,
        "prompt": as_messages(row["prompt"]),
        "reward_model": {"style": "rule", "ground_truth": str(row.get("answer", ""))},
        "extra_info": {"row": json.dumps(row, ensure_ascii=False)},
    }


_REWARD = '''"""The reward as verl calls it, one completion at a time."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from reward import reward  # noqa: E402


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """The score of one completion; one that cannot be scored counts 0."""
    row = json.loads(extra_info["row"])
    prompt = row.pop("prompt")
    columns = {name: [value] for name, value in row.items()}
    return reward(prompts=[prompt], completions=[solution_str], **columns)[0] or 0.0
'''
