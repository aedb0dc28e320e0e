"""From a task's prompt (text or chat messages) to the tokens that the policy sees."""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from probes.errors import UsageError

Prompt = str | list[dict]

PROMPT_STYLES = ("auto", "chat", "plain")


def is_chat(prompt: Prompt) -> bool:
    """Whether the prompt is a list of chat messages (completions are then handed to rewards as messages too)."""
    return not isinstance(prompt, str)


def encode_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, style: str = "auto") -> list[int]:
    """Token ids of one prompt.

    "auto" uses the chat template where the tokenizer has one (text becomes a user message); "chat" insists on it;
    "plain" joins message contents with newlines and uses no template. Raises `UsageError` where chat messages or
    "chat" meet a tokenizer without a template.
    """
    if style not in PROMPT_STYLES:
        raise UsageError(f"Prompt style '{style}' is unknown: use one of {', '.join(PROMPT_STYLES)}.")
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if style != "plain" and (has_template or is_chat(prompt) or style == "chat"):
        if not has_template:
            raise UsageError(
                "The prompts are chat messages (or --prompt-style chat was given), but this tokenizer has no chat "
                "template. Use --prompt-style plain, or a model with a template."
            )
        messages = prompt if is_chat(prompt) else [{"role": "user", "content": prompt}]
        try:
            return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        except TemplateError as error:
            raise UsageError(
                f"The model's chat template refuses the prompt {str(prompt)[:60]!r}: {error}. Change its roles, or use "
                "--prompt-style plain."
            ) from error
    text = "\n".join(message["content"] for message in prompt) if is_chat(prompt) else prompt
    return list(tokenizer(text)["input_ids"])


def encode_all(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, style: str, limit: int | None
) -> list[list[int]]:
    """Token ids of every prompt; each must be shorter than `limit` tokens (the context), else `UsageError`."""
    encoded = [encode_prompt(prompt, tokenizer, style) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise UsageError(f"The prompt {str(prompt)[:60]!r} is empty: every prompt needs at least one token.")
        if limit is not None and len(ids) >= limit:
            raise UsageError(
                f"The prompt {str(prompt)[:60]!r}… has {len(ids)} tokens, but the model's context is {limit} and an "
                "answer needs room too. Shorten or remove this prompt."
            )
    return encoded
