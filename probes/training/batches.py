"""What a step trains on: its prompts, their completions, and the micro-batches of its update."""

from collections.abc import Sequence

import numpy as np

from probes.layout import GroupBatch, Layout, choose_layout, unshared_layout
from probes.noise import Noise
from probes.policy import Policy
from probes.rollouts import Group, by_prompt, score_groups
from probes.sampling import sample_completions
from probes.tasks.task import Row, Task
from probes.training.config import TrainingConfig
from probes.training.loss import token_weights


def prompts_of_step(step: int, n_rows: int, config: TrainingConfig) -> list[int]:
    """Indices of a step's prompts: every prompt once in an order of its own, then again in another."""
    first = step * config.prompts_per_step
    order: dict[int, np.ndarray] = {}
    chosen = []
    for position in range(first, first + config.prompts_per_step):
        epoch, place = divmod(position, n_rows)
        if epoch not in order:
            order[epoch] = np.random.default_rng([config.seed, epoch]).permutation(n_rows)
        chosen.append(int(order[epoch][place]))
    return chosen


def step_noise(policy: Policy, step: int, config: TrainingConfig) -> Noise:
    """The random numbers of a step's completions."""
    return Noise(policy.device, config.seed, step)


def sample_step(
    policy: Policy, task: Task, rows: Sequence[Row], prompts: Sequence[list[int]], step: int, config: TrainingConfig
) -> list[Group]:
    """The groups of a step, sampled from the policy as it is now and scored. Raises `NotFiniteError`."""
    chosen = prompts_of_step(step, len(rows), config)
    per_call = max(1, config.sampling_rows // config.group_size)
    noise, found = step_noise(policy, step, config), []
    for start in range(0, len(chosen), per_call):
        found += sample_completions(
            policy,
            [prompts[i] for i in chosen[start : start + per_call]],
            config.group_size,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            noise=noise,
            first_prompt=start,
        )
    ids = by_prompt(found, config.group_size)
    return score_groups(policy, task, [rows[i] for i in chosen], [prompts[i] for i in chosen], ids)


def micro_batches(policy: Policy, groups: Sequence[Group], config: TrainingConfig, share: bool) -> list[GroupBatch]:
    """The groups that have a gradient, in order, as many in a pass as `tokens_per_pass` allows, at least one.

    `share` says whether prompts may be shared (`probes.layout.shares_prompts`).
    """
    weights = token_weights(groups, config)
    used = [i for i, group in enumerate(groups) if config.kl or group.has_spread]
    if not used:
        return []
    layout: Layout = choose_layout(policy, [groups[i] for i in used], exact=True) if share else unshared_layout
    parts: list[list[int]] = [[]]
    tokens = 0
    for i in used:
        size = sum(map(len, groups[i].completion_ids))
        if parts[-1] and tokens + size > config.tokens_per_pass:
            parts.append([])
            tokens = 0
        parts[-1].append(i)
        tokens += size
    return [layout(policy, [groups[i] for i in part], [weights[i] for i in part], config.temperature) for part in parts]
