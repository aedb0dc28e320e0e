"""Sample completions with a KV cache: each prompt is read once, then its cache serves its whole group.

Left padding, sampling at a temperature or greedily, stop at the policy's EOS. Rows that have ended leave the batch
as soon as they are a quarter of it. What `transformers.generate` would do differently: it reads each prompt once per
completion, which dominates for short answers.
"""

import inspect
from collections.abc import Callable, Sequence

import torch

from probes.errors import NotFiniteError
from probes.noise import Noise, choose_tokens
from probes.policy import Policy


@torch.no_grad()
def sample_completions(
    policy: Policy,
    prompts: Sequence[list[int]],
    group_size: int,
    *,
    max_new_tokens: int,
    temperature: float,
    noise: Noise | None = None,
    first_prompt: int = 0,
    enough_ended: float = 1.0,
    on_token: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Completions of encoded prompts: ``group_size`` for each, in order (B * group_size lists of token ids).

    A completion includes its EOS token where it ended by itself. `temperature` 0 is greedy. `enough_ended` stops
    all once that share of rows has ended (the others are cut). `on_token` is called with the number of running rows
    at each step. `noise` is the only source of randomness; the prompts are its numbers `first_prompt` and on, so that
    what is sampled does not depend on how prompts are batched. Raises `NotFiniteError`. Cost: one forward over the
    prompts and one over each new token.
    """
    device, eos = policy.device, torch.tensor(policy.eos_ids, dtype=torch.long, device=policy.device)
    ids, mask = padded(policy, prompts)
    step = CachedModel(policy, mask)
    logits = step(ids)
    cache = step.cache
    if hasattr(cache, "reorder_cache"):  # unlike batch_repeat_interleave, every kind of cache layer has it
        cache.reorder_cache(torch.arange(len(prompts), device=device).repeat_interleave(group_size))
        logits, step.mask = (x.repeat_interleave(group_size, 0) for x in (logits, mask))
    else:  # an unknown cache: read the prompt once per completion
        step = CachedModel(policy, mask.repeat_interleave(group_size, 0))
        logits = step(ids.repeat_interleave(group_size, 0))

    n_rows = len(logits)
    completions: list[list[int]] = [[] for _ in range(n_rows)]
    rows = torch.arange(n_rows, device=device)  # which completion each row of the batch belongs to
    running = torch.ones(n_rows, dtype=torch.bool, device=device)
    for position in range(max_new_tokens):
        drawn = None
        if temperature > 0:
            which = torch.unique(rows // group_size)
            drawn = noise.draw((which + first_prompt).tolist(), position, group_size, logits.shape[1])
            drawn = drawn[torch.searchsorted(which, rows // group_size) * group_size + rows % group_size]
        token = choose_tokens(logits, temperature, drawn)
        if bool((token < 0).any()):
            raise NotFiniteError
        for row, value, is_running in zip(rows.tolist(), token.tolist(), running.tolist(), strict=True):
            if is_running:
                completions[row].append(value)
        if on_token is not None:
            on_token(int(running.sum()))
        running &= ~torch.isin(token, eos)
        if not running.any() or 1 - float(running.sum()) / n_rows >= enough_ended:
            break
        if hasattr(step.cache, "reorder_cache") and running.sum() * 4 <= len(running) * 3:
            step.select(running.nonzero()[:, 0])
            rows, token, running = rows[running], token[running], running[running]
        logits = step(token[:, None])
    return completions


def padded(policy: Policy, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of prompts, (B, T) each, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), policy.pad_id, device=policy.device)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt, device=policy.device)
        mask[i, width - len(prompt) :] = 1
    return ids, mask


class CachedModel:
    """Runs the model on the next tokens of a batch and keeps cache and attention mask (B, T) up to date."""

    def __init__(self, policy: Policy, mask: torch.Tensor) -> None:
        self.model, self.mask, self.cache = policy.model, mask, None
        self.accepts = inspect.signature(policy.model.forward).parameters

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after the last of `ids` (B, t)."""
        if self.cache is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), ids.shape[1])], 1)
        inputs = {"input_ids": ids, "attention_mask": self.mask, "past_key_values": self.cache, "use_cache": True}
        if "position_ids" in self.accepts:
            inputs["position_ids"] = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self.accepts:
            # An index, not 1: a slice of the last column would make the head copy its weight for every row.
            inputs["logits_to_keep"] = torch.tensor([ids.shape[1] - 1], device=ids.device)
        output = self.model(**inputs)
        self.cache = output.past_key_values
        return output.logits[:, -1]

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch."""
        self.cache.reorder_cache(rows)
        self.mask = self.mask[rows]
