"""The score of a policy on given prompts: rewards of its answers under a decoding."""

from collections.abc import Sequence

import numpy as np

from probes.memory import Memory
from probes.noise import Noise
from probes.policy import Policy
from probes.preserve import left_as_found
from probes.progress import Progress
from probes.prompts import encode_all
from probes.rollouts import SamplingConfig, by_prompt, capped, score_groups
from probes.sampling import sample_completions
from probes.tasks.task import Row, Task

_STREAM = 1 << 40  # random streams apart from those of training batches
_ROWS_AT_ONCE = 256
_HEADROOM_PROMPTS = 64


def score_policy(
    policy: Policy,
    task: Task,
    rows: Sequence[Row],
    *,
    decoding: str,
    max_new_tokens: int,
    temperature: float = 1.0,
    samples: int = 1,
    prompt_style: str = "auto",
    seed: int = 0,
    memory: Memory | None = None,
    key: str = "",
    progress: Progress | None = None,
) -> np.ndarray:
    """Reward of each row's prompt, (n,), NaN where the reward gave None: one greedy answer, or the mean of `samples`.

    The same seed starts from the same random numbers. With `memory` the answers are kept under `key`. The policy is
    left as found. Cost: one forward over the prompts and one over each new token.
    """
    progress, memory = progress or Progress(), memory or Memory()
    if not rows:
        return np.zeros(0)
    prompts = encode_all([row["prompt"] for row in rows], policy.tokenizer, prompt_style, policy.context_length)
    if decoding == "greedy":
        samples, temperature = 1, 0.0
    at_once = max(1, _ROWS_AT_ONCE // samples)
    ids = memory.recall("completions", key) if key else None
    if ids is None:
        ids = []
        progress.begin("score held-out prompts", max_new_tokens * -(-len(rows) // at_once))
        with left_as_found(policy.model):
            policy.model.eval()
            for start in range(0, len(rows), at_once):
                part = prompts[start : start + at_once]
                found = sample_completions(
                    policy,
                    part,
                    samples,
                    max_new_tokens=capped(max_new_tokens, part, policy.context_length),
                    temperature=temperature,
                    noise=scoring_noise(policy, seed),
                    first_prompt=start,
                    on_token=lambda n: progress.advance(),
                )
                ids += by_prompt(found, samples)
        if key:
            memory.keep("completions", key, ids)
    return mean_rewards(policy, task, rows, prompts, ids)


def scoring_noise(policy: Policy, seed: int) -> Noise:
    """The random numbers of scored completions, apart from those of training."""
    return Noise(policy.device, seed, _STREAM)


def mean_rewards(
    policy: Policy, task: Task, rows: Sequence[Row], prompts: Sequence[list[int]], ids: list[list[list[int]]]
) -> np.ndarray:
    """Mean reward of each prompt's completions `ids`, (n,), NaN where none was scored."""
    rewards = np.array([group.rewards for group in score_groups(policy, task, rows, prompts, ids)])
    scored = ~np.isnan(rewards)
    return np.where(scored.any(1), np.where(scored, rewards, 0).sum(1) / np.maximum(scored.sum(1), 1), np.nan)


def measure_headroom(
    policy: Policy,
    task: Task,
    config: SamplingConfig,
    max_new_tokens: int,
    decoding: str,
    progress: Progress | None = None,
    memory: Memory | None = None,
) -> np.ndarray:
    """Rewards of one completion for each of up to 64 held-out prompts, under `decoding` (greedy or sampled): (n,)."""
    rows = list(task.held_out)
    chosen = np.random.default_rng(config.seed).permutation(len(rows))[:_HEADROOM_PROMPTS]
    rewards = score_policy(
        policy,
        task,
        [rows[i] for i in sorted(chosen)],
        decoding=decoding,
        max_new_tokens=max_new_tokens,
        temperature=config.temperature,
        prompt_style=config.prompt_style,
        seed=config.seed,
        memory=memory,
        key=f"held-out, {decoding}, {max_new_tokens} tokens",
        progress=progress,
    )
    return rewards[~np.isnan(rewards)]
