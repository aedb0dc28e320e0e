"""Leave the policy as found: flags, forwards, modes and random state are put back, whatever happens inside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Restore `model` and the random state on leaving, after success, an exception or an interrupt.

    Covers train/eval of every module, requires_grad and .grad of every parameter, forward methods replaced on
    instances, hooks, and torch's random state on the CPU and on the model's GPU. Weights are never written inside.
    """
    modules = [(m, m.training, m.__dict__.get("forward"), _hooks(m), _LAZY in m.__dict__) for m in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    devices = sorted({p.device.index for p, _, _ in parameters if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for module, training, forward, hooks, lazily_hooked in modules:
                module.training = training
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = forward
                for name, entries in hooks.items():
                    current = getattr(module, name)
                    for key in [key for key in current if key not in entries]:
                        del current[key]
                if not lazily_hooked:  # its hooks are gone again, so transformers has to put them in when next needed
                    module.__dict__.pop(_LAZY, None)
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad


_LAZY = "_output_capturing_hooks_installed"  # transformers 5.23: hooks for output_hidden_states, put in at first use
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hooks(module: nn.Module) -> dict[str, set[int]]:
    return {name: set(getattr(module, name)) for name in _HOOKS}
