"""The policy-gradient objective of rollouts, and how one prompt group is laid out for a forward pass.

For group i with completions y_j, advantages A_j and mean completion length T (tokens of a group, over all groups)

    J_i = 1/T  sum_j A_j  sum_t log pi(y_jt | prompt, y_j<t)

so that the mean of J_i over groups has the gradient of GRPO's token-level loss (with the sign of a gain) at the
first update, where the importance ratio is 1 and clipping does nothing.

The prompt's forward pass is shared: a group is one row ``prompt, y_1, ..., y_G`` with an attention mask that lets
each completion see the prompt and itself, and positions that go on from the prompt. This is exact for attention
models that take a 4-D mask and position ids; `shares_prompts` tests it on the policy. Others get one row a completion.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from probes.policy import Policy
from probes.preserve import left_as_found
from probes.rollouts import Group, Rollouts


@dataclass(frozen=True)
class GroupBatch:
    """One group ready for the model: ``inputs`` are its keywords; N completion tokens are predicted.

    ``rows``, ``columns`` (N,) say where in the kept logits token n is predicted, ``targets`` (N,) which token it is,
    ``weights`` (N,) its advantage / T, ``completion`` (N,) which completion it belongs to. ``token_mask`` (B, S) is 1
    on real tokens.
    """

    inputs: dict[str, torch.Tensor]
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    completion: torch.Tensor
    token_mask: torch.Tensor
    temperature: float

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each completion token, (N,), from the model's logits (B, S', V)."""
        picked = logits[self.rows, self.columns].float() / self.temperature
        return picked.log_softmax(-1).gather(1, self.targets[:, None])[:, 0]

    def only(self, chosen: torch.Tensor) -> "GroupBatch":
        """The same inputs with only the `chosen` (N,) completion tokens predicted, and only their logits computed."""
        columns, inputs = self.columns[chosen], dict(self.inputs)
        if "logits_to_keep" in inputs:
            needed, columns = torch.unique(columns, return_inverse=True)
            inputs["logits_to_keep"] = inputs["logits_to_keep"][needed]
        return replace(
            self,
            inputs=inputs,
            rows=self.rows[chosen],
            columns=columns,
            targets=self.targets[chosen],
            weights=self.weights[chosen],
            completion=self.completion[chosen],
        )

    def objective(self, logits: torch.Tensor) -> torch.Tensor:
        """J_i, a scalar; larger is better."""
        return (self.weights * self.log_probs(logits)).sum()


def lay_out(policy: Policy, rollouts: Rollouts, *, shared: bool | None = None) -> list[GroupBatch]:
    """A batch for each group with reward spread (the others have gradient 0). `shared` None tests the policy."""
    groups = rollouts.informative
    if not groups:
        return []
    if shared is None:
        shared = _fits_window(policy, groups) and shares_prompts(policy)
    mean_length = float(np.mean([sum(map(len, group.completion_ids)) for group in groups]))
    layout = _shared if shared else _unshared
    return [layout(policy, group, group.advantages / mean_length, rollouts.temperature) for group in groups]


@torch.no_grad()
def shares_prompts(policy: Policy) -> bool:
    """Whether the shared layout is exact for this policy, tested on two short completions.

    It must give the log-probabilities of the unshared layout, and those of the second completion must not change with
    the first one's tokens. The second test is sharp in half precision too, where rounding blurs the first.
    """
    if policy.model.config._attn_implementation not in ("eager", "sdpa"):  # the others take no 4-D mask
        return False
    n_words = policy.model.get_input_embeddings().weight.shape[0]
    tokens = [(7 * i + 3) % n_words for i in range(15)]
    first, second, other = tokens[5:8], tokens[8:12], tokens[12:15]

    def log_probs(layout: Callable, completion: list[int]) -> torch.Tensor:
        group = Group({}, tokens[:5], [completion, second], ["", ""], np.array([0.0, 1.0]))
        batch = layout(policy, group, group.advantages, 1.0)
        return batch.log_probs(policy.model(**batch.inputs).logits)

    with left_as_found(policy.model):
        policy.model.eval()
        try:
            shared, changed = log_probs(_shared, first), log_probs(_shared, other)
        except (TypeError, ValueError, RuntimeError, IndexError):  # the model takes no 4-D mask or positions
            return False
        unshared = log_probs(_unshared, first)
    exact = policy.dtype == torch.float32
    # Mean difference in nats; bfloat16 rounding alone gives about 0.05 on a 30-layer model.
    equal = float((shared - unshared).abs().mean()) < (1e-3 if exact else 0.1)
    return equal and torch.allclose(shared[len(first) :], changed[len(first) :], atol=1e-4 if exact else 0.02)


def _fits_window(policy: Policy, groups: list[Group]) -> bool:
    """Whether every sequence is within the reach of sliding or chunked attention, which a given mask overrides."""
    config = policy.model.config.get_text_config()
    reach = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    longest = max(len(group.prompt_ids) + max(map(len, group.completion_ids)) for group in groups)
    return all(not limit or longest <= limit for limit in reach)


def _shared(policy: Policy, group: Group, weights: np.ndarray, temperature: float) -> GroupBatch:
    prompt, parts = group.prompt_ids, group.completion_ids
    n_prompt = len(prompt)
    ids = prompt + [token for part in parts for token in part]
    segment = np.repeat(np.arange(len(parts) + 1), [n_prompt, *map(len, parts)])  # 0 is the prompt
    within = np.concatenate([np.arange(len(part)) for part in [prompt, *parts]])
    positions = np.where(segment == 0, within, n_prompt + within)
    order = np.arange(len(ids))
    visible = (order[None] <= order[:, None]) & ((segment[None] == segment[:, None]) | (segment[None] == 0))
    bias = torch.zeros(visible.shape, dtype=policy.dtype)
    bias.masked_fill_(~torch.from_numpy(visible), torch.finfo(policy.dtype).min)
    predicted = order[segment > 0]
    source = np.where(within[predicted] == 0, n_prompt - 1, predicted - 1)
    keep, columns = np.unique(source, return_inverse=True)
    inputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": bias[None, None],
        "position_ids": torch.from_numpy(positions)[None],
    }
    completion = segment[predicted] - 1
    return _batch(
        policy,
        inputs,
        np.zeros_like(columns),
        columns,
        keep,
        np.array(ids)[predicted],
        weights,
        completion,
        np.ones((1, len(ids))),
        temperature,
    )


def _unshared(policy: Policy, group: Group, weights: np.ndarray, temperature: float) -> GroupBatch:
    sequences = [group.prompt_ids + part for part in group.completion_ids]
    n_prompt, width = len(group.prompt_ids), max(map(len, sequences))
    ids = np.full((len(sequences), width), policy.pad_id)
    mask = np.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)], mask[i, : len(sequence)] = sequence, 1
    rows, predicted = np.nonzero(mask * (np.arange(width) >= n_prompt))
    keep = np.arange(n_prompt - 1, width - 1)
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return _batch(
        policy, inputs, rows, predicted - n_prompt, keep, ids[rows, predicted], weights, rows, mask, temperature
    )


def _batch(
    policy: Policy,
    inputs: dict,
    rows: np.ndarray,
    columns: np.ndarray,
    keep: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    completion: np.ndarray,
    token_mask: np.ndarray,
    temperature: float,
) -> GroupBatch:
    """Finish a layout: only the logits at columns `keep` are computed where the model can do so."""
    if "logits_to_keep" in inspect.signature(policy.model.forward).parameters:
        inputs["logits_to_keep"] = torch.from_numpy(keep)
    else:
        columns = keep[columns]
    device = policy.device
    as_tensor = {
        name: torch.as_tensor(value, device=device)
        for name, value in {
            "rows": rows,
            "columns": columns,
            "targets": targets,
            "completion": completion,
            "token_mask": token_mask,
        }.items()
    }
    inputs = {name: value.to(device) for name, value in inputs.items()} | {"use_cache": False}
    return GroupBatch(
        inputs,
        weights=torch.as_tensor(weights[completion], device=device, dtype=torch.float32),
        temperature=temperature,
        **as_tensor,
    )
