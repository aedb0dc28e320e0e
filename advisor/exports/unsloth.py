"""Unsloth: a Python script that trains the layers' weights or LoRA matrices with TRL's trainer."""

import re

from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written
from advisor.exports.trl import script

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
    load = _LOAD.format(full=order.way == FULL)
    if order.way == LORA:
        layers, names = list(order.pick.layers), order.pick.last_names
        load += _LORA.format(rank=order.rank, alpha=order.alpha, names=names, layers=layers)
    text = script(order, load)
    if order.way == LORA:  # the adapters are in the model already
        start, end = text.index("from peft import"), text.index("train_dataset =")
        text = (text[:start] + text[end:]).replace("peft_config=peft_config, ", "")
    text = text.replace("import re\n", "import re\n\nfrom unsloth import FastLanguageModel  # before transformers\n", 1)
    text = text.replace("from transformers import AutoModelForCausalLM, AutoTokenizer\n", "")
    return Written({"train.py": text, **order.data_files()}, "python train.py")


_LOAD = """
model, tokenizer = FastLanguageModel.from_pretrained(MODEL, full_finetuning={full}, load_in_4bit=False)
"""
_LORA = """model = FastLanguageModel.get_peft_model(
    model, r={rank}, lora_alpha={alpha}, target_modules={names}, layers_to_transform={layers}
)
"""


def _caught(parameter: str, pick: Pick) -> bool:
    """A copy of PEFT's rule for ``layers_to_transform``: the first number in a name is the layer."""
    module = parameter.rsplit(".", 1)[0]
    index = re.match(r".*?\.[^.]*\.(\d+)\.", module)
    return bool(index) and int(index.group(1)) in pick.layers and module.rsplit(".", 1)[-1] in pick.last_names
