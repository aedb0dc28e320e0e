"""TRL: a Python script that trains the layers' weights or LoRA matrices, and YAML for ``trl grpo`` (LoRA alone)."""

from dataclasses import replace

import yaml

from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written

CHECKED_WITH = "TRL 1.16.0: the script and the command trl grpo were run; PEFT 0.21.2 for LoRA"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (FULL, LORA)


def write(order: Order) -> Written:
    """``train.py``, ``trl.yaml`` (always LoRA, since the command knows no other way), the data and the reward."""
    names = order.pick.linear
    lora = _LORA.format(rank=order.rank, alpha=order.alpha, modules=list(names))
    text = script(
        order,
        imports="from transformers import AutoModelForCausalLM, AutoTokenizer",
        load=_LOAD,
        train=lora if order.way == LORA else freezing(order) + _AFTER,
        trainer="peft_config=peft_config" if order.way == LORA else "",
    )
    notes = [
        "trl.yaml trains LoRA, the one way in which the command trl grpo can be told layers.",
        "On a machine without a GPU: trl grpo --config trl.yaml --use_cpu true --bf16 false.",
    ]
    files = {"train.py": text, "trl.yaml": _yaml(order), **order.data_files()}
    return Written(files, "python train.py, or for LoRA: trl grpo --config trl.yaml", notes)


def script(order: Order, imports: str, load: str, train: str, trainer: str = "") -> str:
    """A script for TRL's GRPOTrainer.

    `load`, with its `imports`, makes ``model`` and ``tokenizer`` from ``MODEL``, `train` chooses what is trained, and
    `trainer` is a further argument of the trainer.
    """
    has_data = order.material.rows is not None
    settings = {**_settings(order), **_PLACE}
    parts = [
        f'"""{order.pick.says(order.way, order.rank)}; checked with {order.checked_with}."""\n',
        imports + "\n\n" + _IMPORTS + ("from reward import reward\n" if has_data else ""),
        f"MODEL = {order.material.model!r}",
        load + train + (_DATA if has_data else _NO_DATA),
        "args = GRPOConfig(\n" + "".join(f"    {name}={value},\n" for name, value in settings.items()) + ")",
        f"trainer = GRPOTrainer({', '.join(filter(None, [_GIVEN, trainer]))})",
        "trainer.train()",
        'trainer.save_model("trained")',
    ]
    return "\n".join(parts) + "\n"


def freezing(order: Order) -> str:
    """Lines that leave exactly the layers' weights to be trained, and check how many numbers that is."""
    return _FREEZE.format(pattern=order.pick.parameter_regex, n=order.pick.n_parameters)


def _settings(order: Order) -> dict[str, str]:
    """GRPOConfig's fields as source text."""
    told = {**order.sampling_settings, **order.run_settings, **_CONFIG}
    return {name: repr(value) for name, value in told.items()}


def _yaml(order: Order) -> str:
    m = order.material
    content = {
        "model_name_or_path": m.model,
        "use_peft": True,
        "lora_r": order.rank,
        "lora_alpha": order.alpha,
        "lora_target_modules": [order.pick.linear_regex],  # exactly one element is taken as a pattern
        **order.sampling_settings,
        **order.run_settings,
        **_CONFIG,
    }
    if m.rows is not None:
        content |= {"datasets": [{"path": "json", "data_files": "train.jsonl"}], "reward_funcs": ["reward.reward"]}
    head = replace(order, way=LORA).header
    missing = "" if m.rows is not None else "# datasets: and reward_funcs: are yours to fill in\n"
    return head + yaml.safe_dump(content, sort_keys=False, width=10_000) + missing


_GIVEN = "model, reward, args, train_dataset, processing_class=tokenizer"
_CONFIG = {"gradient_checkpointing_kwargs": {"use_reentrant": False}, "report_to": "none"}
_PLACE = {
    "use_cpu": "not torch.accelerator.is_available()",
    "bf16": "torch.cuda.is_available() and torch.cuda.is_bf16_supported()",
}
_IMPORTS = """import re

import torch
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer
"""
_LOAD = """\
model = AutoModelForCausalLM.from_pretrained(MODEL)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
"""
_FREEZE = """\
TRAINED = re.compile(r"{pattern}")
for name, parameter in model.named_parameters():
    parameter.requires_grad_(bool(TRAINED.match(name)))
n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
assert n_trained == {n}, f"{{n_trained}} parameters would be trained, not {n}: is this another model?"
"""
_AFTER = """\
# Gradient checkpointing asks for gradients of the embeddings, which sends the backward pass through every frozen layer.
model.enable_input_require_grads = lambda: None
# Steps of RL are smaller than bfloat16 resolves, so the trained weights are float32, as when the layers were judged.
for parameter in model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()
"""
_LORA = """\
from peft import LoraConfig

peft_config = LoraConfig(r={rank}, lora_alpha={alpha}, task_type="CAUSAL_LM", target_modules={modules})
"""
_DATA = """\
train_dataset = load_dataset("json", data_files="train.jsonl", split="train")
"""
_NO_DATA = """\
train_dataset = load_dataset("json", data_files="YOUR.jsonl", split="train")  # rows with "prompt" and other columns


def reward(prompts, completions, **columns):
    raise NotImplementedError("write your reward: one float a completion")

"""
