"""Expected reward over completions that are known already: a score without the luck of sampling.

A policy that is sampled gives completion y with a probability that one forward pass tells exactly. Where the
completions that are worth a reward are known (short answers; what the base policy has sampled), the sum of reward times
probability is what sampling would estimate, without its noise. Rewards are taken above the average, so that what is not
known counts as average: else a policy that is merely surer of what it gives anyway would seem better.

At a low temperature the same sum would be no good stand-in for greedy scores: it knows nothing of the prompts that
training turns from wrong to right where the base policy has not sampled the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from probes.layout import GroupBatch, choose_layout
from probes.policy import Policy
from probes.prompts import encode_all
from probes.rollouts import Group, by_prompt, capped, score_groups
from probes.sampling import sample_completions
from probes.scoring import scoring_noise
from probes.tasks.task import Row, Task
from probes.training.branch import Branch
from probes.training.branched_update import base_pass, branch_log_probs
from probes.training.config import TrainingConfig

_NEAR = 0.5  # of the largest distance to the average: below, a completion is left out
_LEAST_SHARE = 0.25  # of what samples are above or below the average that must be known
_TOKENS_PER_PASS = 2048  # completion tokens of a batch of groups: a bound on memory, not on the result
_TOKENS_AT_ONCE = 8192  # the same over all branches in one pass


@torch.no_grad()
def expected_rewards(
    policy: Policy,
    branches: Sequence[Branch],
    groups: Sequence[Group],
    temperature: float,
    share: bool | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Expected reward of each group's prompt, (n,), of the policy and of each branch, sampled at `temperature`.

    Each group holds the known completions of a prompt with their rewards; one without any is worth 0. Branches come
    lowest layer first; one whose logits are not finite has NaN. Cost: a forward pass over the completions, and of each
    branch one from its layer upwards. `share` says whether prompts may be shared (`probes.layout.shares_prompts`).
    """
    base = np.zeros(len(groups))
    own = [np.zeros_like(base) for _ in branches]
    for places in _batches(groups):
        part = [groups[i] for i in places]
        batch = choose_layout(policy, part, share)(policy, part, [g.rewards for g in part], temperature)
        read = partial(_expected, batch, part)
        handed, found = base_pass(policy, batch, {branch.layer for branch in branches}, read)
        base[places] = found.numpy()
        at_once = max(1, _TOKENS_AT_ONCE // len(batch.targets))
        for start in range(0, len(branches), at_once):
            chosen = branches[start : start + at_once]
            for values, found in zip(
                own[start : start + at_once], branch_log_probs(policy, batch, handed, chosen, read=read), strict=True
            ):
                values[places] = found.numpy()
    return base, own


def _expected(batch: GroupBatch, groups: Sequence[Group], logits: torch.Tensor) -> torch.Tensor:
    """Sum over each group's completions of reward times probability, (n,) float64."""
    rewards = torch.as_tensor(np.concatenate([group.rewards for group in groups]), dtype=torch.float64)
    group = torch.as_tensor(np.repeat(np.arange(len(groups)), [len(group.completion_ids) for group in groups]))
    of_completion = torch.zeros(len(rewards), dtype=torch.float64)  # on the CPU: not every device has float64
    of_completion.index_add_(0, batch.completion.cpu(), batch.log_probs(logits).cpu().double())
    return torch.zeros(len(groups), dtype=torch.float64).index_add_(0, group, rewards * of_completion.exp())


def _batches(groups: Sequence[Group]) -> list[list[int]]:
    """Places of the groups that have completions, as many in a batch as its bound on tokens allows."""
    found: list[list[int]] = []
    tokens = _TOKENS_PER_PASS
    for i, group in enumerate(groups):
        size = sum(map(len, group.completion_ids))
        if size == 0:
            continue
        if tokens + size > _TOKENS_PER_PASS:
            found.append([])
            tokens = 0
        found[-1].append(i)
        tokens += size
    return found


@dataclass(frozen=True)
class Known:
    """Completions of some prompts that the base policy has sampled.

    ``groups`` hold a prompt's distinct completions with their rewards above the ``average``; what is not known counts
    as average. ``share`` is how much of what samples are above or below the average the groups account for, up to 1:
    with long or many good answers it is little.
    """

    groups: list[Group]
    average: float
    share: float

    @property
    def serves(self) -> bool:
        """Whether expected rewards over them may stand for the rewards of samples."""
        return self.share >= _LEAST_SHARE


@torch.no_grad()
def know(policy: Policy, task: Task, rows: Sequence[Row], config: TrainingConfig, samples: int = 8) -> Known:
    """What `policy` answers to `rows` in `samples` samples a prompt, scored.

    Completions whose rewards are near the average would move no score by much, and are left out: those that differ from
    it by less than half of what the most different one does. Unscored ones (NaN) are too. Raises `NotFiniteError`.
    Cost: the samples, and a forward pass over them.
    """
    prompts = encode_all([row["prompt"] for row in rows], policy.tokenizer, config.prompt_style, policy.context_length)
    at_once, found = max(1, config.sampling_rows // samples), []
    room = capped(config.max_new_tokens, prompts, policy.context_length)
    for start in range(0, len(prompts), at_once):
        noise, part = scoring_noise(policy, config.seed), prompts[start : start + at_once]
        settings = {"max_new_tokens": room, "temperature": config.temperature, "noise": noise, "first_prompt": start}
        found += sample_completions(policy, part, samples, **settings)
    scored = score_groups(policy, task, rows, prompts, by_prompt(found, samples))
    rewards = np.array([group.rewards for group in scored])
    average = float(np.nanmean(rewards)) if (~np.isnan(rewards)).any() else 0.0
    above = np.nan_to_num(rewards - average)
    above[np.abs(above) < max(_NEAR * np.abs(above).max(), 1e-9)] = 0.0
    groups = [_distinct(group, own) for group, own in zip(scored, above, strict=True)]
    sizes = [replace(group, rewards=np.abs(group.rewards)) for group in groups]
    expected, _ = expected_rewards(policy, [], sizes, config.temperature)
    whole = np.abs(above).mean()
    return Known(groups, average, float(expected.mean() / whole) if whole else 0.0)


def _distinct(group: Group, above: np.ndarray) -> Group:
    """The group with each completion that is not average once, and with `above` as its rewards."""
    places = {tuple(ids): i for i, ids in enumerate(group.completion_ids) if above[i]}
    kept = sorted(places.values())
    ids, texts = ([values[i] for i in kept] for values in (group.completion_ids, group.completions))
    return Group(group.row, group.prompt_ids, ids, texts, above[kept])
