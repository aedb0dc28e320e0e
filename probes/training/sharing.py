"""Whether branches of a policy can share passes, tested on the policy itself."""

from collections.abc import Sequence

import numpy as np
import torch

from probes.policy import Policy
from probes.preserve import left_as_found
from probes.sampling import CachedModel, padded
from probes.training.branch import Branch, make_branches
from probes.training.branched_sampling import BranchedModel, follow_all
from probes.training.config import TrainingConfig


@torch.no_grad()
def branches_share(policy: Policy) -> str:
    """Why the rows of several branches cannot share a pass on this policy, "" where they can.

    Two branches with changed weights read two prompts and one token more, together and alone: the logits must agree,
    and those of one must not change with the weights of the other (which is sharp in half precision too). Cost: a few
    passes over a few tokens, and copies of two layers.
    """
    n_words = policy.model.get_input_embeddings().weight.shape[0]
    prompts = [[(7 * i + 3) % n_words for i in range(5)], [(11 * i + 2) % n_words for i in range(3)]]
    layers = sorted({policy.n_layers // 3, policy.n_layers - 1})
    with left_as_found(policy.model):
        policy.model.eval()
        branches = make_branches(policy, [(k, 1e-3) for k in layers], TrainingConfig())
        _scale(branches[-1], 1.2)
        try:
            first = _together(policy, branches, prompts)
            _scale(branches[0], 0.8)
            second = _together(policy, branches, prompts)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            return f"{type(policy.model).__name__} does not take rows of several branches ({_first_line(error)})"
        alone = []
        for branch in branches:
            with branch.installed(policy):
                alone.append(_alone(policy, prompts))
    exact = policy.dtype == torch.float32
    # Mean difference in nats: rounding in bfloat16 gives up to about 0.05 on a 30-layer model.
    apart = max(float((a - b).abs().mean()) for a, b in zip(second, alone, strict=True))
    touched = float((first[-1] - second[-1]).abs().max()) if len(branches) > 1 else 0.0
    if apart > (1e-3 if exact else 0.1) or touched > (1e-4 if exact else 0.02):
        return f"in {type(policy.model).__name__} the rows of one branch depend on those of another"
    return ""


def _together(policy: Policy, branches: Sequence[Branch], prompts: list[list[int]]) -> list[torch.Tensor]:
    """Log-probabilities (2, V) of each branch after the prompts and one token more."""
    ids, mask = padded(policy, prompts)
    model = BranchedModel(policy, branches, mask, follow_all(len(branches), np.arange(2)))
    model(ids, np.arange(2))
    logits = model(ids[:, -1:], np.arange(2))
    return [part.float().log_softmax(-1) for part in logits.split(2)[1:]]


def _alone(policy: Policy, prompts: list[list[int]]) -> torch.Tensor:
    ids, mask = padded(policy, prompts)
    model = CachedModel(policy, mask)
    model(ids)
    return model(ids[:, -1:]).float().log_softmax(-1)


def _scale(branch: Branch, factor: float) -> None:
    for parameter in branch.module.parameters():
        if parameter.ndim > 1:
            parameter.mul_(factor)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
