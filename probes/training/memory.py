"""Memory that training needs whatever the batch, from parameter counts alone."""

from collections.abc import Sequence

import torch

from probes.policy import Policy
from probes.training.in_place import trained_parameters

_MASTER, _GRADIENT, _MOMENTS = 4, 4, 8  # bytes a trained parameter in float32


def joint_bytes(policy: Policy, layers: Sequence[int]) -> int:
    """Bytes of weights and optimisers when every layer of `layers` is trained at once, each as often as it is named.

    One copy of the policy, one of each layer in training, and the optimiser's state of each; see `training_bytes`.
    """
    base = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    return base + sum(training_bytes(policy, [k]) - base for k in layers)


def training_bytes(policy: Policy, layers: Sequence[int] | None) -> int:
    """Bytes of weights, optimiser and the copy to put back when `layers` (None: all parameters) are trained.

    Leaves out what depends on the batch: activations, logits and the sampling cache.
    """
    weights = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    for parameter in trained_parameters(policy, layers).values():
        own = parameter.element_size() + _GRADIENT + _MOMENTS  # the copy to put back
        weights += parameter.numel() * (own + (_MASTER if parameter.dtype != torch.float32 else 0))
    return weights
