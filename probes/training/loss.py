"""The loss of GRPO and Dr. GRPO per completion token."""

from collections.abc import Sequence

import numpy as np
import torch

from probes.rollouts import Group
from probes.training.config import TrainingConfig


def token_weights(groups: Sequence[Group], config: TrainingConfig) -> list[np.ndarray]:
    """Advantage over the normaliser of each completion, (G,) for each group: the weight of each of its tokens."""
    total = normaliser(groups, config)
    if config.algorithm == "dr_grpo":
        return [_centred(group.rewards) / total for group in groups]
    return [group.advantages / total for group in groups]


def normaliser(groups: Sequence[Group], config: TrainingConfig) -> float:
    """What a step's sum over tokens is divided by; groups without reward spread count too, as in TRL."""
    if config.algorithm == "dr_grpo":
        return sum(len(group.completion_ids) for group in groups) * config.max_new_tokens
    return max(1, sum(len(ids) for group in groups for ids in group.completion_ids))


def clipped_gain(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, weights: torch.Tensor, config: TrainingConfig
) -> torch.Tensor:
    """min(r w, clip(r) w) per token, (N,), r the ratio to the policy that sampled; larger is better."""
    ratio = (log_probs - old_log_probs).exp()
    return torch.minimum(ratio * weights, ratio.clamp(1 - config.clip_low, 1 + config.clip_high) * weights)


def loss_part(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    base_log_probs: torch.Tensor | None,
    weights: torch.Tensor,
    total: float,
    config: TrainingConfig,
) -> torch.Tensor:
    """What N tokens add to the loss of a step, a scalar; `total` is the step's `normaliser`.

    The base policy's log-probabilities (N,) are needed with a KL term only.
    """
    part = -clipped_gain(log_probs, old_log_probs, weights, config).sum()
    return part + config.kl / total * kl_from_base(log_probs, base_log_probs).sum() if config.kl else part


def kl_from_base(log_probs: torch.Tensor, base_log_probs: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(policy, base) per token, (N,), at least 0 (Schulman's k3, as GRPO takes it)."""
    difference = base_log_probs - log_probs
    return difference.exp() - difference - 1


def _centred(rewards: np.ndarray) -> np.ndarray:
    """Reward minus the group's mean; 0 where unscored."""
    scored = ~np.isnan(rewards)
    centred = np.zeros(len(rewards))
    if scored.sum() >= 2:
        centred[scored] = rewards[scored] - rewards[scored].mean()
    return centred
