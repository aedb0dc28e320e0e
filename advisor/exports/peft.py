"""PEFT: an ``adapter_config.json``, which `LoraConfig.from_pretrained` reads."""

import json

from advisor.exports.pick import Pick
from advisor.exports.target import LORA, Order, Written

CHECKED_WITH = "PEFT 0.21.2: LoraConfig.from_pretrained and get_peft_model"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (LORA,)


def write(order: Order) -> Written:
    """Full module names, so that neither the head nor layer 10 is caught by layer 1. JSON has no comments."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": order.material.model,
        "r": order.rank,
        "lora_alpha": order.alpha,
        "target_modules": list(order.pick.linear),
    }
    run = "peft.get_peft_model(model, peft.LoraConfig.from_pretrained('FOLDER'))  # in your own program"
    return Written({"adapter_config.json": json.dumps(config, indent=1) + "\n"}, run)
