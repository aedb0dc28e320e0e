"""TRL: a Python script that trains the layers' weights or LoRA matrices, and YAML for ``trl grpo`` (LoRA alone)."""

import yaml

from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order, Written

CHECKED_WITH = "TRL 1.16.0: the script and the command trl grpo were run; PEFT 0.21.2 for LoRA"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (FULL, LORA)


def write(order: Order) -> Written:
    """``train.py``, ``trl.yaml`` (always LoRA, since the command knows no other way), the data and the reward."""
    files = {"train.py": script(order, _LOAD, _AFTER), "trl.yaml": _yaml(order), **order.data_files()}
    notes = [
        "trl.yaml trains LoRA, the one way in which the command trl grpo can be told layers.",
        "On a machine without a GPU: trl grpo --config trl.yaml --use_cpu true --bf16 false.",
    ]
    return Written(files, "python train.py, or for LoRA: trl grpo --config trl.yaml", notes)


def script(order: Order, load: str, after: str = "") -> str:
    """A training script; `load` makes ``model`` and ``tokenizer`` from ``MODEL``, `after` follows the freezing."""
    m = order.material
    train, peft = (_LORA, "peft_config=peft_config, ") if order.way == LORA else (_FREEZE, "")
    config = "".join(f"    {name}={value!r},\n" for name, value in _settings(order).items())
    return "\n".join(
        [
            f'"""{order.pick.says(order.way, order.rank)}; checked with {order.checked_with}."""',
            "",
            _IMPORTS.strip(),
            "" if m.rows is None else "from reward import reward",
            "",
            f"MODEL = {m.model!r}",
            load.strip(),
            train.format(
                pattern=order.pick.parameter_regex,
                n=order.pick.n_parameters,
                rank=order.rank,
                alpha=order.alpha,
                modules=list(order.pick.linear),
                after=after,
            ).strip(),
            _DATA.strip() if m.rows is not None else _NO_DATA.strip(),
            f"args = GRPOConfig(\n{config}{_PLACE})",
            f"trainer = GRPOTrainer(model, reward, args, train_dataset, processing_class=tokenizer, {peft})".replace(
                ", )", ")"
            ),
            "trainer.train()",
            'trainer.save_model("trained")',
            "",
        ]
    )


def _settings(order: Order) -> dict:
    m = order.material
    return {
        "output_dir": "trained",
        "num_generations": m.group_size,
        "per_device_train_batch_size": m.group_size,
        "gradient_accumulation_steps": m.prompts_per_step,
        "max_completion_length": m.max_new_tokens,
        "temperature": m.temperature,
        "learning_rate": m.rate,
        "lr_scheduler_type": "constant",
        "max_steps": m.steps,
        "beta": 0.0,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "report_to": "none",
    }


def _yaml(order: Order) -> str:
    m = order.material
    content = {
        "model_name_or_path": m.model,
        "use_peft": True,
        "lora_r": order.rank,
        "lora_alpha": order.alpha,
        "lora_target_modules": [order.pick.linear_regex],  # exactly one element is taken as a pattern
        **_settings(order),
    }
    if m.rows is not None:
        content |= {"datasets": [{"path": "json", "data_files": "train.jsonl"}], "reward_funcs": ["reward.reward"]}
    says = order.pick.says(LORA, order.rank)
    head = f"# {says}\n# Checked with {order.checked_with}\n"
    missing = "" if m.rows is not None else "# datasets: and reward_funcs: are yours to fill in\n"
    return head + yaml.safe_dump(content, sort_keys=False, width=10_000) + missing


_PLACE = """    use_cpu=not torch.accelerator.is_available(),
    bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
"""
_IMPORTS = """
import re

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
"""
_LOAD = """
model = AutoModelForCausalLM.from_pretrained(MODEL)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
"""
_FREEZE = """
TRAINED = re.compile(r"{pattern}")
for name, parameter in model.named_parameters():
    parameter.requires_grad_(bool(TRAINED.match(name)))
n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
assert n_trained == {n}, f"{{n_trained}} parameters would be trained, not {n}: is this another model?"
{after}"""
_AFTER = """
# Gradient checkpointing asks for gradients of the embeddings, which sends the backward pass through every frozen layer.
model.enable_input_require_grads = lambda: None
# Steps of RL are smaller than bfloat16 resolves, so the trained weights are float32, as when the layers were judged.
for parameter in model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()
"""
_LORA = """
from peft import LoraConfig

peft_config = LoraConfig(r={rank}, lora_alpha={alpha}, task_type="CAUSAL_LM", target_modules={modules})
"""
_DATA = """
train_dataset = load_dataset("json", data_files="train.jsonl", split="train")
"""
_NO_DATA = """
train_dataset = load_dataset("json", data_files="YOUR.jsonl", split="train")  # rows with "prompt" and other columns


def reward(prompts, completions, **columns):
    raise NotImplementedError("write your reward: one float a completion")

"""
