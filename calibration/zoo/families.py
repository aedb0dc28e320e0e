"""The model families of the zoo, each a transformers configuration in one function."""

from collections.abc import Callable

from transformers import (
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

_HEADS, _CONTEXT = 4, 128


def _modern(kind: type[PreTrainedConfig], **extra) -> Callable[..., PreTrainedConfig]:
    """Families with rotary positions, gated MLPs and grouped queries."""

    def config(n_layers: int, width: int, **tokens) -> PreTrainedConfig:
        return kind(
            num_hidden_layers=n_layers,
            hidden_size=width,
            intermediate_size=width * 5 // 2,
            num_attention_heads=_HEADS,
            num_key_value_heads=_HEADS // 2,
            head_dim=width // _HEADS,
            max_position_embeddings=_CONTEXT,
            tie_word_embeddings=True,
            **extra,
            **tokens,
        )

    return config


def _gpt2(n_layers: int, width: int, **tokens) -> PreTrainedConfig:
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2Config(n_layer=n_layers, n_embd=width, n_head=_HEADS, n_positions=_CONTEXT, **drop, **tokens)


def _parallel(kind: type[PreTrainedConfig], **extra) -> Callable[..., PreTrainedConfig]:
    """Families whose attention and MLP run side by side, with biases and untied embeddings."""

    def config(n_layers: int, width: int, **tokens) -> PreTrainedConfig:
        return kind(
            num_hidden_layers=n_layers,
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=_HEADS,
            max_position_embeddings=_CONTEXT,
            tie_word_embeddings=False,
            **extra,
            **tokens,
        )

    return config


FAMILIES: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": _modern(LlamaConfig),
    "qwen2": _modern(Qwen2Config),  # biases on queries, keys and values
    "qwen3": _modern(Qwen3Config),  # norms on queries and keys
    "mistral": _modern(MistralConfig, sliding_window=None),
    "gemma2": _modern(Gemma2Config, sliding_window=_CONTEXT, query_pre_attn_scalar=16),
    "olmo2": _modern(Olmo2Config),
    "gpt2": _gpt2,  # learned positions, biases, Conv1D
    "gpt_neox": _parallel(GPTNeoXConfig),
    "phi": _parallel(PhiConfig, partial_rotary_factor=0.5),
}
