"""ms-swift: a command line, with the layers' weights by a pattern, or LoRA."""

import json
import shlex

from advisor.exports.material import as_messages, jsonl
from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written

CHECKED_WITH = "ms-swift 4.6.0: its argument names and its matcher of names; PEFT 0.21.2 for LoRA"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (FULL, LORA)


def write(order: Order) -> Written:
    """``train.sh``; the reward is a plug-in that hands over to ``reward.py``."""
    m, pick = order.material, order.pick
    options = {"rlhf_type": "grpo", "model": m.model}
    if order.way == FULL:
        options |= {"tuner_type": "full", "freeze_parameters_ratio": 1}
        options["trainable_parameters_regex"] = pick.parameter_regex
    else:
        options |= {"tuner_type": "lora", "lora_rank": order.rank, "lora_alpha": order.alpha}
        options["target_regex"] = pick.linear_regex
    if m.rows is not None:
        options |= {"dataset": "train.jsonl", "external_plugins": "plugin.py", "reward_funcs": "advisor_reward"}
    options |= {**order.sampling_settings, **order.run_settings}
    told = " \\\n  ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())
    mine = "" if m.rows is not None else "# --dataset, --external_plugins and --reward_funcs are yours to add\n"
    files = {"train.sh": f"{order.header}{mine}swift rlhf \\\n  {told}\n"}
    if m.rows is not None:
        rows = [
            {"messages": as_messages(row["prompt"]), **{k: v for k, v in row.items() if k != "prompt"}}
            | {"advisor_prompt": json.dumps(row["prompt"], ensure_ascii=False)}
            for row in m.rows
        ]
        files |= {"train.jsonl": jsonl(rows), **m.reward_files, "plugin.py": _PLUGIN}
    notes = ["Version 3 of ms-swift spells --tuner_type --train_type."]
    if order.way == FULL:
        notes.append(
            "ms-swift's gradient checkpointing sends the backward pass through the frozen layers too: where memory "
            "allows, add --gradient_checkpointing false."
        )
    return Written(files, "bash train.sh", notes)


_PLUGIN = '''"""The reward as ms-swift takes it."""

import json
import sys
from pathlib import Path

from swift.rewards import ORM, orms

sys.path.insert(0, str(Path(__file__).parent))
from reward import reward  # noqa: E402


class AdvisorReward(ORM):
    """Columns of the data arrive as lists beside the completions."""

    def __call__(self, completions, **columns):
        prompts = [json.loads(prompt) for prompt in columns.pop("advisor_prompt")]
        return reward(prompts=prompts, completions=completions, **columns)


orms["advisor_reward"] = AdvisorReward
'''
