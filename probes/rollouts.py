"""Rollouts: sampled completions of a task's prompts with rewards and group-relative advantages."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from probes.errors import UsageError
from probes.memory import Memory
from probes.noise import Noise
from probes.policy import Policy
from probes.preserve import left_as_found
from probes.progress import Progress
from probes.prompts import encode_all
from probes.sampling import sample_completions
from probes.tasks.rewards import score
from probes.tasks.task import Row, Task

ADVANTAGE_EPS = 1e-4  # as TRL's GRPO
_PILOT_PROMPTS = 8
_PILOT_TOKENS = 256
_PILOT_STREAM, _STREAM = 1 << 41, 1 << 42  # random streams apart from those of the training batches


@dataclass(frozen=True)
class SamplingConfig:
    """How rollouts are drawn. ``max_new_tokens`` None is chosen from a first few (see `choose_max_new_tokens`)."""

    groups: int = 32  # groups with reward spread that are wanted
    group_size: int = 8  # completions of one prompt
    max_prompts: int = 128  # stop drawing here, whatever was found
    batch_prompts: int = 16  # prompts sampled at once
    temperature: float = 1.0
    max_new_tokens: int | None = None
    prompt_style: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "groups": (self.groups >= 1, "at least 1"),
            "group size": (self.group_size >= 2, "at least 2, since advantages compare completions of one prompt"),
            "max prompts": (self.max_prompts >= self.groups, f"at least the number of groups ({self.groups})"),
            "batch prompts": (self.batch_prompts >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0, since equal completions carry no signal"),
            "seed": (self.seed >= 0, "at least 0"),
            "max new tokens": (self.max_new_tokens is None or self.max_new_tokens >= 1, "at least 1"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UsageError(
                    f"The {name} {getattr(self, name.replace(' ', '_'))} is not allowed: it must be {rule}."
                )


@dataclass(frozen=True)
class Group:
    """All completions of one prompt: token ids, texts, rewards (G,) with NaN for unscored, advantages (G,)."""

    row: Row
    prompt_ids: list[int]
    completion_ids: list[list[int]]
    completions: list[str]
    rewards: np.ndarray

    @property
    def advantages(self) -> np.ndarray:
        return group_advantages(self.rewards)

    @property
    def has_spread(self) -> bool:
        """Whether the group carries any policy-gradient signal."""
        return bool(np.any(np.abs(self.advantages) > 0))


@dataclass(frozen=True)
class Rollouts:
    """One batch of groups that serves every probe, and the policy's score on held-out prompts."""

    groups: list[Group]
    max_new_tokens: int
    temperature: float
    eos_ids: list[int] = field(default_factory=list)

    @property
    def informative(self) -> list[Group]:
        """The groups with reward spread: all others have advantage and gradient 0."""
        return [group for group in self.groups if group.has_spread]

    @property
    def share_without_spread(self) -> float:
        return 1 - len(self.informative) / len(self.groups)

    @property
    def rewards(self) -> np.ndarray:
        """Every scored reward, (N,)."""
        rewards = np.concatenate([group.rewards for group in self.groups])
        return rewards[~np.isnan(rewards)]

    @property
    def n_completions(self) -> int:
        return sum(len(group.completion_ids) for group in self.groups)

    @property
    def n_tokens(self) -> int:
        """Completion tokens."""
        return sum(len(ids) for group in self.groups for ids in group.completion_ids)

    def fingerprint(self) -> str:
        """SHA-256 of completions and rewards: what a probe of these rollouts depends on."""
        content = [[group.prompt_ids, group.completion_ids, group.rewards.tolist()] for group in self.groups]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def share_cut(self) -> float:
        """Share of completions that did not end by themselves."""
        ends = set(self.eos_ids)
        cut = [ids[-1] not in ends for group in self.groups for ids in group.completion_ids]
        return float(np.mean(cut))


def group_advantages(rewards: np.ndarray) -> np.ndarray:
    """GRPO's advantages (r - mean) / (std + 1e-4) within a group, (G,); 0 for unscored completions and flat groups.

    Sample standard deviation, as TRL takes it (Shao et al. 2024, arXiv 2402.03300, eq. for outcome supervision).
    """
    scored = ~np.isnan(rewards)
    advantages = np.zeros(len(rewards))
    if scored.sum() >= 2 and np.ptp(rewards[scored]) > 0:
        values = rewards[scored]
        advantages[scored] = (values - values.mean()) / (values.std(ddof=1) + ADVANTAGE_EPS)
    return advantages


def collect_rollouts(
    policy: Policy,
    task: Task,
    config: SamplingConfig,
    progress: Progress | None = None,
    memory: Memory | None = None,
) -> Rollouts:
    """Sample batches of training prompts until `config.groups` of them show reward spread, or a limit is hit.

    Prompts are taken in a shuffled order and not repeated. Every prompt has its own random numbers, so that an
    interrupted run goes on with the same ones. Cost: see `sample_completions`.
    """
    progress, memory = progress or Progress(), memory or Memory()
    order = np.random.default_rng(config.seed).permutation(len(task.train))[: config.max_prompts]
    rows = [task.train[i] for i in order]
    limit = policy.context_length
    prompts = encode_all([row["prompt"] for row in rows], policy.tokenizer, config.prompt_style, limit)
    with left_as_found(policy.model):
        policy.model.eval()
        max_new = config.max_new_tokens or memory.recall("max_new_tokens", "")
        if max_new is None:
            max_new = choose_max_new_tokens(policy, rows, prompts, task, config, progress)
            memory.keep("max_new_tokens", "", max_new)  # not by reward: mending it keeps the completions
        max_new = capped(max_new, prompts, limit)
        progress.note(f"completions get up to {max_new} tokens")
        progress.begin("sample rollouts", config.groups)
        groups: list[Group] = []
        for start in range(0, len(rows), config.batch_prompts):
            batch = slice(start, start + config.batch_prompts)
            ids = _sample_batch(policy, prompts[batch], config, max_new, start, memory)
            found = score_groups(policy, task, rows[batch], prompts[batch], ids)
            groups += found
            progress.advance(sum(group.has_spread for group in found))
            if sum(group.has_spread for group in groups) >= config.groups:
                break
    return Rollouts(groups, max_new, config.temperature, policy.eos_ids)


def choose_max_new_tokens(
    policy: Policy,
    rows: Sequence[Row],
    prompts: Sequence[list[int]],
    task: Task,
    config: SamplingConfig,
    progress: Progress,
) -> int:
    """The room that completions need, judged from a first few, which are sampled until three quarters have ended.

    Twice the median length of those that beat their group's mean reward; with fewer than four such, a quarter more
    than the longest. At most 256 tokens are tried. A broken reward shows here, before the long sampling.
    """
    few = slice(0, _PILOT_PROMPTS)
    cap = capped(_PILOT_TOKENS, prompts[few], policy.context_length)
    progress.begin("see how long answers are", cap)
    ids = sample_completions(
        policy,
        prompts[few],
        config.group_size,
        max_new_tokens=cap,
        temperature=config.temperature,
        noise=Noise(policy.device, config.seed, _PILOT_STREAM),
        enough_ended=0.75,
        on_token=lambda n: progress.advance(),
    )
    groups = score_groups(policy, task, rows[few], prompts[few], by_prompt(ids, config.group_size))
    rewarded = [len(ids) for g in groups for ids, a in zip(g.completion_ids, g.advantages, strict=True) if a > 0]
    need = 2 * float(np.median(rewarded)) if len(rewarded) >= 4 else 1.25 * max(map(len, ids))
    return min(cap, ceil(need))


def capped(max_new_tokens: int, prompts: Sequence[list[int]], limit: int | None) -> int:
    """`max_new_tokens`, or what the context of `limit` tokens leaves after the longest prompt."""
    return max_new_tokens if limit is None else min(max_new_tokens, limit - max(map(len, prompts)))


def _sample_batch(
    policy: Policy,
    prompts: Sequence[list[int]],
    config: SamplingConfig,
    max_new: int,
    start: int,
    memory: Memory,
) -> list[list[list[int]]]:
    key = f"batch at prompt {start}, {max_new} tokens"
    ids = memory.recall("completions", key)
    if ids is None:
        flat = sample_completions(
            policy,
            prompts,
            config.group_size,
            max_new_tokens=max_new,
            temperature=config.temperature,
            noise=Noise(policy.device, config.seed, _STREAM),
            first_prompt=start,
        )
        ids = by_prompt(flat, config.group_size)
        memory.keep("completions", key, ids)
    return ids


def score_groups(
    policy: Policy, task: Task, rows: Sequence[Row], prompts: Sequence[list[int]], ids: list[list[list[int]]]
) -> list[Group]:
    """Groups of the completions `ids` (a list a prompt) with their rewards. Raises what the reward's call raises."""
    flat = [completion for group in ids for completion in group]
    texts = policy.tokenizer.batch_decode(flat, skip_special_tokens=True)
    repeated = [row for row, group in zip(rows, ids, strict=True) for _ in group]
    rewards = by_prompt(score(task.reward, repeated, texts, flat), len(ids[0]))
    texts = by_prompt(texts, len(ids[0]))
    return [
        Group(row, prompt, completions, text, np.array(reward))
        for row, prompt, completions, text, reward in zip(rows, prompts, ids, texts, rewards, strict=True)
    ]


def by_prompt(flat: Sequence, group_size: int) -> list[list]:
    """A flat list cut into groups."""
    return [list(flat[i : i + group_size]) for i in range(0, len(flat), group_size)]
