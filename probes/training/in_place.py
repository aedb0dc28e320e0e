"""What both engines share: which parameters are trained, and that the policy is put back."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import nn

from probes.errors import UsageError
from probes.policy import Policy
from probes.preserve import left_as_found
from probes.prompts import encode_all
from probes.rollouts import capped
from probes.tasks.task import Row, Task
from probes.training.config import TrainingConfig


class TrainedInPlace:
    """Training of some parameters of a policy, which is left as found when the context is left.

    ``trained`` are the parameters by full name, ``base`` copies of them as they were, ``prompts`` the encoded rows;
    ``config`` has ``max_new_tokens`` within the context. Raises `UsageError` as `trained_parameters` does.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        config: TrainingConfig,
        layers: Sequence[int] | None,
        rows: Sequence[Row] | None,
    ) -> None:
        self.policy, self.task = policy, task
        self.layers = None if layers is None else sorted(set(layers))
        self.rows = list(task.train if rows is None else rows)
        self.trained = trained_parameters(policy, self.layers)
        limit, texts = policy.context_length, [row["prompt"] for row in self.rows]
        self.prompts = encode_all(texts, policy.tokenizer, config.prompt_style, limit)
        self.config = replace(config, max_new_tokens=capped(config.max_new_tokens, self.prompts, limit))
        self.base: dict[str, torch.Tensor] = {}
        self._open = ExitStack()

    def __exit__(self, *exc) -> None:
        self._open.close()

    def _begin(self, opened: ExitStack) -> None:
        """Have `opened` put everything back; dropout is off from here on."""
        opened.enter_context(left_as_found(self.policy.model))
        self.policy.model.eval()
        self.base = {name: p.detach().clone() for name, p in self.trained.items()}
        opened.callback(self._copy_in, self.base)

    @torch.no_grad()
    def _copy_in(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])


def trained_parameters(policy: Policy, layers: Sequence[int] | None) -> dict[str, nn.Parameter]:
    """Full names and parameters of `layers`, or of the whole model (tied weights once) where None.

    Raises `UsageError` for a layer that the policy does not have, or weights that cannot be trained.
    """
    if layers is None:
        found = dict(policy.model.named_parameters())
    else:
        check_layers(layers, policy.n_layers)
        found = {name: p for k in layers for name, p in policy.stack.parameters(k).items()}
    frozen = [name for name, p in found.items() if p.dtype not in (torch.float32, torch.bfloat16)]
    if frozen:
        dtype = str(found[frozen[0]].dtype).removeprefix("torch.")
        raise UsageError(
            f"{frozen[0]} is {dtype}, which cannot be trained: load the policy with --dtype bfloat16 or float32."
        )
    return found


def check_layers(layers: Sequence[int], n_layers: int) -> None:
    """Raise `UsageError` unless every index is a layer of a stack of `n_layers`."""
    for k in layers:
        if not 0 <= k < n_layers:
            raise UsageError(
                f"Layer {k} is out of range: this policy has {n_layers} layers, numbered 0 to {n_layers - 1}."
            )
    if not layers:
        raise UsageError("No layer was named: give at least one.")
