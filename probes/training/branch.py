"""A branch: the policy with its own copy of one layer, everything else shared with the base and with other branches."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from probes.policy import Policy
from probes.tape import replaced_forwards
from probes.training.config import TrainingConfig
from probes.training.in_place import trained_parameters
from probes.training.optimizer import MasterAdamW


class Branch:
    """A single-layer policy in training: layer `layer` is its own, with its optimizer and learning rate.

    Memory: the layer's weights once more, and `MasterAdamW`. Raises `UsageError` for weights that cannot be trained.
    """

    def __init__(self, policy: Policy, layer: int, config: TrainingConfig) -> None:
        trained_parameters(policy, [layer])  # raises for what cannot be trained
        self.layer, self.config = layer, config
        self.module: nn.Module = copy.deepcopy(policy.stack.layers[layer]).eval()
        self.module.requires_grad_(True)
        self.module.zero_grad(set_to_none=True)
        self.names = list(policy.stack.parameters(layer))
        self.optimizer = MasterAdamW(self.module.parameters(), config)

    @property
    def learning_rate(self) -> float:
        return self.config.learning_rate

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights, float32 copies on the CPU, by full parameter name."""
        masters = self.optimizer.masters
        return {n: m.detach().to("cpu", copy=True) for n, m in zip(self.names, masters, strict=True)}

    @contextmanager
    def installed(self, policy: Policy) -> Iterator[None]:
        """Inside, `policy` is this branch: its layer runs with the branch's weights."""

        def forward_of(k: int, layer: nn.Module, original: Callable) -> Callable:
            return self.module.forward

        with replaced_forwards([policy.stack.layers[self.layer]], forward_of):
            yield


def make_branches(policy: Policy, arms: Sequence[tuple[int, float]], config: TrainingConfig) -> list[Branch]:
    """A branch for each (layer, learning rate), lowest layer first: the order that shared passes rely on."""
    return [Branch(policy, layer, replace(config, learning_rate=rate)) for layer, rate in sorted(arms)]


def select_rows(value: Any, rows: torch.Tensor, n_rows: int) -> Any:
    """The same argument of a layer for other rows of the batch: tensors (n_rows, ...) are indexed, others are kept."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim > 1 and value.shape[0] == n_rows and n_rows > 1 else value
    if isinstance(value, tuple | list):
        return type(value)(select_rows(part, rows, n_rows) for part in value)
    if isinstance(value, dict):
        return {name: select_rows(part, rows, n_rows) for name, part in value.items()}
    return value


def hidden_of(result: Any) -> torch.Tensor:
    """The residual stream in what a layer returned."""
    return result[0] if isinstance(result, tuple) else result


def like(result: Any, hidden: torch.Tensor) -> Any:
    """What a layer returned, with another residual stream."""
    return (hidden, *result[1:]) if isinstance(result, tuple) else hidden
