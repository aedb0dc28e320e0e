"""Gradient checkpointing that keeps what freezing saves: only the layers that backward reaches run forward again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from probes.policy import Policy
from probes.tape import replaced_forwards


@contextmanager
def checkpointed(policy: Policy, lowest: int) -> Iterator[None]:
    """Inside, layers `lowest` and above keep only their inputs for backward.

    transformers' own `gradient_checkpointing_enable` makes the embeddings ask for gradients, so that backward and
    recomputation run through the whole stack whatever is trained.
    """

    def forward_of(k: int, layer: nn.Module, original: Callable) -> Callable:
        def forward(*args, **kwargs):
            if k < lowest or not torch.is_grad_enabled():
                return original(*args, **kwargs)
            return checkpoint(original, *args, use_reentrant=False, **kwargs)

        return forward

    with replaced_forwards(list(policy.stack.layers), forward_of):
        yield
