"""axolotl: a YAML configuration, with every weight of the layers by ``unfrozen_parameters``, or LoRA."""

import yaml

from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written

CHECKED_WITH = "axolotl 0.19.0: its configuration schema and its matcher of names; PEFT 0.21.2 for LoRA"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (FULL, LORA)


def write(order: Order) -> Written:
    """Dots stay unescaped and a letter must follow the index, since axolotl escapes dots itself and ``layers.1.*``
    would also match 10 to 19."""
    m, pick = order.material, order.pick
    content = {"base_model": m.model}
    if order.way == FULL:
        content["unfrozen_parameters"] = [f"^{pick.prefix}.{k}.[a-z]" for k in pick.layers]
    else:
        content |= {"adapter": "lora", "lora_r": order.rank, "lora_alpha": order.alpha, "lora_dropout": 0.0}
        content["lora_target_modules"] = list(pick.linear)
    content |= {
        "rl": "grpo",
        "trl": order.sampling_settings,
    }
    if m.rows is not None:
        content["trl"]["reward_funcs"] = ["axolotl_reward.reward"]
        content["datasets"] = [
            {"path": "json", "data_files": ["train.jsonl"], "split": "train", "type": "axolotl_reward.rows"}
        ]
    content |= {
        "micro_batch_size": m.group_size,
        "gradient_accumulation_steps": m.prompts_per_step,
        "max_steps": m.steps,
        "learning_rate": m.rate,
        "optimizer": "adamw_torch",
        "lr_scheduler": "constant",
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "output_dir": "trained",
    }
    files = {"axolotl.yaml": order.header + yaml.safe_dump(content, sort_keys=False, width=10_000)}
    notes = ["Under FSDP set use_orig_params: true."] if order.way == FULL else []
    if m.rows is not None:
        files |= {**order.data_files(), "axolotl_reward.py": _MODULE}
    else:
        files["axolotl.yaml"] += "# trl.reward_funcs: and datasets: are yours to fill in\n"
    return Written(files, "PYTHONPATH=. axolotl train axolotl.yaml", notes)


_MODULE = '''"""What axolotl.yaml names: the reward, and the rows as they are."""

from reward import reward  # noqa: F401


def rows(cfg, *args, **kwargs):
    """A data set transformation that changes nothing."""
    return lambda example, tokenizer=None: example, {}
'''
