"""Policies and rollouts for tests: untrained models of many architectures, random rollouts, planted effects."""

from pathlib import Path

import numpy as np
import torch
import transformers

from probes.memory import Memory
from probes.policy import Policy
from probes.rollouts import Group, Rollouts
from probes.tasks import Task

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "tiny-policy"
SUMS = DATA / "sums.jsonl"

_SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_ROPE = {**_SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
_GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
ARCHITECTURES = {  # class: (where its layers are, configuration)
    "Llama": ("model.layers", _ROPE),
    "Qwen2": ("model.layers", {**_ROPE, "tie_word_embeddings": True}),
    "Qwen3": ("model.layers", {**_ROPE, "head_dim": 8}),
    "Gemma2": ("model.layers", {**_ROPE, "head_dim": 8, "sliding_window": 64}),
    "Mistral": ("model.layers", _ROPE),
    "Olmo2": ("model.layers", _ROPE),
    "Phi": ("model.layers", {**_ROPE, "num_key_value_heads": 4}),
    "GPT2": ("transformer.h", _GPT2),
    "GPTNeoX": ("gpt_neox.layers", {**_SMALL, "intermediate_size": 48, "max_position_embeddings": 128}),
    "OPT": (
        "model.decoder.layers",
        {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128},
    ),
    "Mixtral": ("model.layers", {**_ROPE, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "Bloom": ("transformer.h", {"vocab_size": 99, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
}


def make_model(name: str, seed: int = 0, **changes) -> transformers.PreTrainedModel:
    """An untrained model of the architecture, in evaluation mode."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**{**ARCHITECTURES[name][1], **changes})
    config.eos_token_id, config.pad_token_id = 1, 0
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def make_rollouts(n_groups: int = 6, group_size: int = 3, n_words: int = 99, seed: int = 0) -> Rollouts:
    """Random prompts, completions of random lengths, random rewards."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(2, n_words, n).tolist()  # noqa: E731
    groups = [
        Group(
            {"prompt": "x"},
            draw(rng.integers(3, 7)),
            [draw(rng.integers(1, 5)) for _ in range(group_size)],
            [""] * group_size,
            rng.normal(size=group_size),
        )
        for _ in range(n_groups)
    ]
    return Rollouts(groups, 8, 1.0, [1])


def task_with(task: Task, reward, **changes) -> Task:
    """The same prompts with another reward."""
    return Task(**{**vars(task), "reward": reward, "max_reward": None, **changes})


def only_layer_matters(policy: Policy, k: int) -> None:
    """Plant an effect: every other layer is made to do nothing, and to have no gradient, for good."""
    with torch.no_grad():
        for i, layer in enumerate(policy.stack.layers):
            if i != k:
                for part in (
                    layer.input_layernorm,
                    layer.post_attention_layernorm,
                    layer.self_attn.o_proj,
                    layer.mlp.down_proj,
                ):
                    part.weight.zero_()


def model_state(model: torch.nn.Module) -> dict:
    """Everything that must be as found: weights, flags, gradients, modes, hooks, forwards, random state."""
    return {
        "weights": [p.detach().double().sum().item() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.sum().item() for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "forward": ["forward" in m.__dict__ for m in model.modules()],
        "random": torch.get_rng_state().tolist(),
    }


class Kept(Memory):
    """A memory that keeps everything while it lives."""

    def __init__(self) -> None:
        self.values = {}

    def recall(self, kind, key):
        return self.values.get((kind, key))

    def keep(self, kind, key, value):
        self.values[kind, key] = value
