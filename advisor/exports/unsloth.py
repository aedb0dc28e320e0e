"""Unsloth: a Python script that trains the layers' weights or LoRA matrices with TRL's trainer."""

import re

from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written
from advisor.exports.trl import freezing, script

CHECKED_WITH = (
    "the arguments of unsloth 2026.10.9, and PEFT 0.21.2 for LoRA; unsloth itself needs a GPU and was not run"
)


def ways(pick: Pick) -> tuple[str, ...]:
    """LoRA goes by the last part of a name and the index: only where that catches no other tower's layers."""
    caught = [name for name in pick.model_parameters if _caught(name, pick)]
    return (FULL, LORA) if all(name in pick.parameters for name in caught) else (FULL,)


def write(order: Order) -> Written:
    """``train.py``. Unsloth has to be imported before transformers; layers are a list, an index alone is misread.

    Its gradient checkpointing needs the gradient of the embeddings, which the script therefore leaves asked for.
    """
    pick = order.pick
    lora = _LORA.format(rank=order.rank, alpha=order.alpha, names=pick.last_names, layers=list(pick.layers))
    text = script(
        order,
        imports="from unsloth import FastLanguageModel  # before transformers",
        load=_LOAD.format(full=order.way == FULL),
        train=freezing(order) if order.way == FULL else lora,
    )
    return Written({"train.py": text, **order.data_files()}, "python train.py")


_LOAD = """\
model, tokenizer = FastLanguageModel.from_pretrained(MODEL, full_finetuning={full}, load_in_4bit=False)
"""
_LORA = """\
model = FastLanguageModel.get_peft_model(
    model, r={rank}, lora_alpha={alpha}, target_modules={names}, layers_to_transform={layers}
)
"""


def _caught(parameter: str, pick: Pick) -> bool:
    """A copy of PEFT's rule for ``layers_to_transform``: the first number in a name is the layer."""
    module = parameter.rsplit(".", 1)[0]
    index = re.match(r".*?\.[^.]*\.(\d+)\.", module)
    return bool(index) and int(index.group(1)) in pick.layers and module.rsplit(".", 1)[-1] in pick.last_names
