"""How prompt groups are laid out for one forward pass, with each prompt shared by its completions where that is exact.

Shared: a group is one row ``prompt, y_1, ..., y_G`` with an attention mask that lets each completion see the prompt
and itself, and positions that go on from the prompt. This is exact for attention models that take a 4-D mask and
position ids; `shares_prompts` tests it on the policy. Unshared: one row a completion, as trainers do.
Prompts are padded on the left, so that completions of all groups begin in the same column.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from probes.log_probs import token_log_probs
from probes.policy import Policy
from probes.preserve import left_as_found
from probes.rollouts import Group


@dataclass(frozen=True)
class GroupBatch:
    """Groups ready for the model: ``inputs`` are its keywords; N completion tokens are predicted.

    ``rows``, ``columns`` (N,) say where in the kept logits token n is predicted, ``targets`` (N,) which token it is,
    ``weights`` (N,) its weight in the objective, ``completion`` (N,) which completion it belongs to, counted over all
    groups. ``token_mask`` (B, S) is 1 on real tokens.
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
        source = self.rows * logits.shape[1] + self.columns
        return token_log_probs(logits.flatten(0, 1), source, self.targets, self.temperature)

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
        """Weighted sum of the log-probabilities, a scalar; larger is better."""
        return (self.weights * self.log_probs(logits)).sum()


Layout = Callable[[Policy, Sequence[Group], Sequence[np.ndarray], float], GroupBatch]


def choose_layout(policy: Policy, groups: Sequence[Group], exact: bool | None = None) -> Layout:
    """The shared layout where it is exact for this policy and cheaper for these groups, else the unshared one.

    With long completions a shared row is dearer: attention over it grows with the square of its length. `exact` says
    what `shares_prompts` found, None asks it.
    """
    fits = _is_cheaper_shared(policy, groups) and _fits_window(policy, groups)
    return shared_layout if fits and (shares_prompts(policy) if exact is None else exact) else unshared_layout


@torch.no_grad()
def shares_prompts(policy: Policy) -> bool:
    """Whether the shared layout is exact for this policy, tested on two short completions.

    It must give the log-probabilities of the unshared layout, and those of the second completion must not change with
    the first one's tokens. The second test is sharp in half precision too, where rounding blurs the first. Cost: three
    forward passes over a few tokens.
    """
    if policy.model.config._attn_implementation not in ("eager", "sdpa"):  # the others take no 4-D mask
        return False
    n_words = policy.model.get_input_embeddings().weight.shape[0]
    tokens = [(7 * i + 3) % n_words for i in range(15)]
    first, second, other = tokens[5:8], tokens[8:12], tokens[12:15]

    def log_probs(layout: Layout, completion: list[int]) -> torch.Tensor:
        group = Group({}, tokens[:5], [completion, second], ["", ""], np.array([0.0, 1.0]))
        batch = layout(policy, [group], [group.advantages], 1.0)
        return batch.log_probs(policy.model(**batch.inputs).logits)

    with left_as_found(policy.model):
        policy.model.eval()
        try:
            shared, changed = log_probs(shared_layout, first), log_probs(shared_layout, other)
        except (TypeError, ValueError, RuntimeError, IndexError):  # the model takes no 4-D mask or positions
            return False
        unshared = log_probs(unshared_layout, first)
    exact = policy.dtype == torch.float32
    # Mean difference in nats; bfloat16 rounding alone gives about 0.05 on a 30-layer model.
    equal = float((shared - unshared).abs().mean()) < (1e-3 if exact else 0.1)
    return equal and torch.allclose(shared[len(first) :], changed[len(first) :], atol=1e-4 if exact else 0.02)


def shared_layout(
    policy: Policy, groups: Sequence[Group], weights: Sequence[np.ndarray], temperature: float
) -> GroupBatch:
    """One row a group. `weights` are one number a completion, (G,) for each group."""
    n_prompt = max(len(group.prompt_ids) for group in groups)
    width = n_prompt + max(sum(map(len, group.completion_ids)) for group in groups)
    shape = (len(groups), width)
    ids, positions = np.full(shape, policy.pad_id), np.zeros(shape, dtype=np.int64)
    segment = np.full(shape, -1)  # -1 padding, 0 prompt, j the j-th completion
    source, completion = np.full(shape, -1), np.full(shape, -1)  # the column that predicts a token; its completion
    n_before = 0
    for row, group in enumerate(groups):
        length = len(group.prompt_ids)
        start = n_prompt - length
        ids[row, start:n_prompt], segment[row, start:n_prompt] = group.prompt_ids, 0
        positions[row, start:n_prompt] = np.arange(length)
        start = n_prompt
        for j, part in enumerate(group.completion_ids):
            place = slice(start, start + len(part))
            ids[row, place], segment[row, place], completion[row, place] = part, j + 1, n_before + j
            positions[row, place] = length + np.arange(len(part))
            source[row, place] = np.arange(start - 1, start - 1 + len(part))
            source[row, start : start + 1] = n_prompt - 1  # nothing where the completion is empty
            start += len(part)
        n_before += len(group.completion_ids)
    before = np.tril(np.ones((width, width), dtype=bool))
    same, prompt = segment[:, :, None] == segment[:, None, :], segment[:, None, :] == 0
    padding = segment[:, None, :] < 0
    visible = before & (same | prompt) & (~padding | np.eye(width, dtype=bool))  # padding sees itself: no empty row
    bias = torch.zeros(visible.shape, dtype=policy.dtype)
    bias.masked_fill_(~torch.from_numpy(visible), torch.finfo(policy.dtype).min)
    rows, predicted = np.nonzero(source >= 0)
    keep, columns = np.unique(source[rows, predicted], return_inverse=True)
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": bias[:, None],
        "position_ids": torch.from_numpy(positions),
    }
    return _batch(
        policy,
        inputs,
        {"rows": rows, "columns": columns, "targets": ids[rows, predicted], "completion": completion[rows, predicted]},
        keep,
        weights,
        segment >= 0,
        temperature,
    )


def unshared_layout(
    policy: Policy, groups: Sequence[Group], weights: Sequence[np.ndarray], temperature: float
) -> GroupBatch:
    """One row a completion."""
    pairs = [(group.prompt_ids, part) for group in groups for part in group.completion_ids]
    n_prompt = max(len(prompt) for prompt, _ in pairs)
    width = n_prompt + max(len(part) for _, part in pairs)
    ids = np.full((len(pairs), width), policy.pad_id)
    mask = np.zeros_like(ids)
    for row, (prompt, part) in enumerate(pairs):
        place = slice(n_prompt - len(prompt), n_prompt + len(part))
        ids[row, place], mask[row, place] = prompt + part, 1
    rows, predicted = np.nonzero(mask * (np.arange(width) >= n_prompt))
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "position_ids" in inspect.signature(policy.model.forward).parameters:
        inputs["position_ids"] = torch.from_numpy((mask.cumsum(1) - 1).clip(min=0))
    return _batch(
        policy,
        inputs,
        {"rows": rows, "columns": predicted - n_prompt, "targets": ids[rows, predicted], "completion": rows},
        np.arange(n_prompt - 1, width - 1),
        weights,
        mask,
        temperature,
    )


def _batch(
    policy: Policy,
    inputs: dict,
    tokens: dict[str, np.ndarray],
    keep: np.ndarray,
    weights: Sequence[np.ndarray],
    token_mask: np.ndarray,
    temperature: float,
) -> GroupBatch:
    """Finish a layout: only the logits at columns `keep` are computed where the model can do so."""
    if "logits_to_keep" in inspect.signature(policy.model.forward).parameters:
        inputs["logits_to_keep"] = torch.from_numpy(keep)
    else:
        tokens["columns"] = keep[tokens["columns"]]
    device = policy.device
    weight = np.concatenate(weights)[tokens["completion"]]
    return GroupBatch(
        {name: value.to(device) for name, value in inputs.items()} | {"use_cache": False},
        weights=torch.as_tensor(weight, device=device, dtype=torch.float32),
        token_mask=torch.as_tensor(token_mask, device=device).long(),
        temperature=temperature,
        **{name: torch.as_tensor(value, device=device) for name, value in tokens.items()},
    )


def _is_cheaper_shared(policy: Policy, groups: Sequence[Group]) -> bool:
    """By multiplications of one layer: linear in the tokens of all rows, attention in the square of each row."""
    linear = float(np.mean(policy.stack.sizes()))
    per_pair = 2 * (getattr(policy.model.config.get_text_config(), "hidden_size", None) or linear**0.5)
    cost = {"shared": 0.0, "unshared": 0.0}
    for group in groups:
        prompt, lengths = len(group.prompt_ids), np.array([len(part) for part in group.completion_ids])
        for name, rows in (("shared", np.array([prompt + lengths.sum()])), ("unshared", prompt + lengths)):
            cost[name] += float((rows * linear + rows**2 * per_pair).sum())
    return cost["shared"] <= cost["unshared"]


def _fits_window(policy: Policy, groups: Sequence[Group]) -> bool:
    """Whether every sequence is within the reach of sliding or chunked attention, which a given mask overrides."""
    config = policy.model.config.get_text_config()
    reach = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    longest = max(len(group.prompt_ids) + max(map(len, group.completion_ids)) for group in groups)
    return all(not isinstance(limit, int) or not limit or longest <= limit for limit in reach)
