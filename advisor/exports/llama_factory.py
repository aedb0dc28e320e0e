"""LLaMA-Factory: all weights of one layer by BAdam in its fixed mode, LoRA for several."""

import json
import re

import yaml

from advisor.exports.material import as_text
from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written

CHECKED_WITH = "the arguments of LLaMA-Factory 0.9.5 and the rule of BAdam 1.4, and PEFT 0.21.2 for LoRA"
_NO_RL = (
    "LLaMA-Factory has no GRPO stage and takes no reward function: this configuration fine-tunes on the answers of the "
    "data (stage sft)."
)


def ways(pick: Pick) -> tuple[str, ...]:
    """LoRA alone for several layers, or where BAdam would not find the layer or would catch others with it."""
    return (LORA,) if len(pick.layers) > 1 or _block(pick) is None else (FULL, LORA)


def write(order: Order) -> Written:
    """A configuration, and the prompts with their answers as a data set."""
    m, pick = order.material, order.pick
    content = {"model_name_or_path": m.model, "stage": "sft", "do_train": True}
    if order.way == FULL:
        content |= {"finetuning_type": "full", "use_badam": True, "badam_mode": "layer", "badam_switch_mode": "fixed"}
        content["badam_start_block"] = _block(pick)
        content["pure_bf16"] = True  # BAdam keeps its own copy in float32
    else:
        content |= {"finetuning_type": "lora", "lora_rank": order.rank, "lora_alpha": order.alpha}
        content["lora_target"] = ",".join(pick.linear)
    content |= {
        "template": "default",
        "dataset_dir": ".",
        "dataset": "advisor",
        **order.run_settings,
    }
    files = {"llama_factory.yaml": order.header + yaml.safe_dump(content, sort_keys=False, width=10_000)}
    notes = [_NO_RL, "Put the name of your model's chat template for 'template: default'."]
    rows = [row for row in m.rows or [] if isinstance(row.get("answer"), str)]
    if rows:
        pairs = [{"prompt": as_text(row["prompt"]), "response": row["answer"]} for row in rows]
        columns = {"prompt": "prompt", "response": "response"}
        about = {"advisor": {"file_name": "train.json", "columns": columns}}
        files |= {"train.json": json.dumps(pairs, indent=1, ensure_ascii=False) + "\n"}
        files |= {"dataset_info.json": json.dumps(about, indent=1) + "\n"}
    else:
        notes.append("There are no answers to fine-tune on: put your own data set's name for 'dataset: advisor'.")
    return Written(files, "llamafactory-cli train llama_factory.yaml", notes)


def _block(pick: Pick) -> int | None:
    """The number by which BAdam knows the layer; None where it trains other tensors than those of the layer.

    A copy of BAdam 1.4's rule: blocks are counted in the order of the parameters, by names with ``layers.N.`` in them
    (also those of vision towers), and a block is every parameter whose name contains its prefix.
    """
    blocks: list[str] = []
    for name in pick.model_parameters:
        found = re.findall(r".*layers.[^.]*\.", name)
        if found and not any(block in name for block in blocks):
            blocks.append(found[0])
    wanted = f"{pick.prefix}.{pick.layers[0]}."
    trained = {name for name in pick.model_parameters if wanted in name}
    return blocks.index(wanted) if wanted in blocks and trained == set(pick.parameters) else None
