"""AdamW on float32 master copies: weights in half precision would round small updates away."""

from collections.abc import Iterable

import torch
from torch import nn

from probes.training.config import TrainingConfig

_MOMENTS = ("exp_avg", "exp_avg_sq")


class MasterAdamW:
    """AdamW over `parameters`, with a float32 copy of each that is not float32 itself.

    Gradients are added to the copies as backward delivers them and freed at once. Memory beyond the weights: 16 bytes a
    parameter in half precision (copy, gradient, two moments), 12 in float32. Call `close` when done.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: TrainingConfig) -> None:
        self.parameters = list(parameters)
        self.masters = [
            p if p.dtype == torch.float32 else p.detach().float().requires_grad_(True) for p in self.parameters
        ]
        self.config = config
        self._adam = torch.optim.AdamW(
            self.masters, betas=config.adam_betas, eps=1e-8, weight_decay=config.weight_decay, fused=True
        )
        pairs = [(p, m) for p, m in zip(self.parameters, self.masters, strict=True) if p is not m]
        self._hooks = [p.register_post_accumulate_grad_hook(_move_gradient_to(m)) for p, m in pairs]

    def step(self, learning_rate: float) -> float:
        """One update from the gathered gradients; returns their norm before clipping. Not taken if it is not finite."""
        for master in self.masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        norm = float(nn.utils.clip_grad_norm_(self.masters, self.config.max_grad_norm))
        if norm == norm and norm != float("inf"):
            for group in self._adam.param_groups:
                group["lr"] = learning_rate
            self._adam.step()
            with torch.no_grad():
                for parameter, master in zip(self.parameters, self.masters, strict=True):
                    if parameter is not master:
                        parameter.copy_(master)
        self._adam.zero_grad(set_to_none=True)
        return norm

    def add_gradients(self, gradients: Iterable[torch.Tensor | None]) -> None:
        """Add gradients by parameter, in order, as if backward had delivered them."""
        for master, gradient in zip(self.masters, gradients, strict=True):
            if gradient is not None:
                found = gradient.detach().float()
                master.grad = found.clone() if master.grad is None else master.grad.add_(found)

    def state(self) -> list[dict[str, torch.Tensor]]:
        """Master copy and moments of each parameter, in order, float32 on the CPU."""
        found = []
        for master in self.masters:
            moments = self._adam.state.get(master) or {}
            kept = {name: moments.get(name, torch.zeros_like(master)) for name in _MOMENTS}
            found.append({n: v.detach().to("cpu", copy=True) for n, v in {"master": master, **kept}.items()})
        return found

    @torch.no_grad()
    def restore(self, state: Iterable[dict[str, torch.Tensor]], updates_done: int) -> None:
        """Go on from what `state` gave after so many calls of `step`."""
        for parameter, master, kept in zip(self.parameters, self.masters, state, strict=True):
            master.copy_(kept["master"])
            if parameter is not master:
                parameter.copy_(master)
            moments = {name: kept[name].to(master.device, copy=True) for name in _MOMENTS}
            self._adam.state[master] = {"step": torch.tensor(float(updates_done), device=master.device), **moments}

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _move_gradient_to(master: torch.Tensor):
    def move(parameter: nn.Parameter) -> None:
        gradient = parameter.grad.float()
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        parameter.grad = None

    return move


def warmed_up(step: int, warmup_steps: int) -> float:
    """Share of the learning rate at a 0-based step: rises linearly over the warm-up, then 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
