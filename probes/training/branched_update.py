"""One pass of several branches over the same completions: below a branch's layer everything is the base policy's.

First the base policy runs once and the inputs of the layers in training are kept (`base_pass`). Then every branch
starts at its own layer: the rows of all branches go up the stack together, those of branch k joining at layer k,
and backward ends where each began (`branch_log_probs`).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from probes.layout import GroupBatch
from probes.policy import Policy
from probes.tape import replaced_forwards
from probes.training.branch import Branch, hidden_of, like, select_rows

Read = Callable[[torch.Tensor], torch.Tensor]  # from the logits of a batch


@torch.no_grad()
def base_pass(
    policy: Policy, batch: GroupBatch, layers: Collection[int], read: Read | None = None
) -> tuple[dict[int, Any], torch.Tensor]:
    """What the base policy hands to each of `layers` (its hidden states in the form that layers return them), and what
    `read` makes of its logits: the log-probabilities (N,) unless told otherwise. Cost: one forward."""
    handed: dict[int, Any] = {}

    def forward_of(k: int, layer: nn.Module, original: Callable) -> Callable:
        def forward(hidden: torch.Tensor, *args, **kwargs):
            result = original(hidden, *args, **kwargs)
            if k in layers:
                handed[k] = like(result, hidden)
            return result

        return forward

    with replaced_forwards(list(policy.stack.layers), forward_of):
        found = (read or batch.log_probs)(policy.model(**batch.inputs).logits)
    return handed, found


def branch_log_probs(
    policy: Policy,
    batch: GroupBatch,
    handed: dict[int, Any],
    branches: Sequence[Branch],
    checkpointing: bool = False,
    read: Read | None = None,
) -> list[torch.Tensor]:
    """Log-probabilities of the completion tokens under each of `branches`, (N,) each, or what `read` makes of their
    logits; `handed` is of `base_pass`.

    Branches come lowest layer first. Cost: the layers from each branch's own upwards, and the head.
    """
    n_rows = len(batch.token_mask)

    def run(module: Callable, *args, **kwargs) -> Any:
        if checkpointing and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False, **kwargs)
        return module(*args, **kwargs)

    def forward_of(k: int, layer: nn.Module, original: Callable) -> Callable:
        own = [branch for branch in branches if branch.layer == k]
        n_below = sum(branch.layer < k for branch in branches)
        rows = torch.arange(n_rows, device=policy.device).repeat(n_below)

        def forward(hidden: torch.Tensor, *args, **kwargs):
            found = []
            if n_below:
                more, named = select_rows((args, kwargs), rows, n_rows)
                result = run(original, hidden, *more, **named)
                found.append(hidden_of(result))
            for branch in own:
                result = run(branch.module.forward, hidden_of(handed[k]), *args, **kwargs)
                found.append(hidden_of(result))
            if not found:  # nothing has begun yet: hand on something of the right form
                return like(next(iter(handed.values())), hidden)
            return like(result, torch.cat(found) if len(found) > 1 else found[0])

        return forward

    with replaced_forwards(list(policy.stack.layers), forward_of):
        logits = policy.model(**batch.inputs).logits
    return [(read or batch.log_probs)(part) for part in logits.split(n_rows)]
