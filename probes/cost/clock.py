"""Seconds of each layer in a real pass, forward and backward, taken at the borders between layers."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


class LayerClock:
    """Use as a context round forward and backward of a model with these layers.

    ``forward`` (L,) are the seconds inside each layer, all calls together; ``backward`` (L,) those from the arrival of
    the gradient at a layer's output to that at its input, or to the end of the pass for the lowest layer that it
    reaches, NaN below; ``head`` is (forward, backward) of everything else. On a GPU each border waits for the device.
    Call `begin_backward` between the two, and read after the context.
    """

    def __init__(self, layers: Sequence[nn.Module], device: torch.device) -> None:
        self.layers, self.device = list(layers), device
        n = len(self.layers)
        self.forward, self._arrived = np.zeros(n), np.full(n + 1, np.nan)
        self._turn: float | None = None

    def __enter__(self) -> "LayerClock":
        self._hooks = []
        for k, layer in enumerate(self.layers):
            self._hooks.append(layer.register_forward_pre_hook(self._entering(k), with_kwargs=True))
            self._hooks.append(layer.register_forward_hook(self._leaving(k)))
        self._begun = self._entered = self.now()
        return self

    def __exit__(self, *exc) -> None:
        self._ended = self.now()
        for hook in self._hooks:
            hook.remove()

    def begin_backward(self) -> None:
        self._turn = self.now()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def backward(self) -> np.ndarray:
        seconds = np.full(len(self.layers), np.nan)
        for k in reversed(range(len(self.layers))):
            above, below = self._arrived[k + 1], self._arrived[k]
            if np.isnan(above):
                break
            seconds[k] = (self._ended if np.isnan(below) else below) - above
        return seconds

    @property
    def head(self) -> tuple[float, float]:
        middle = self._ended if self._turn is None else self._turn
        forward = middle - self._begun - float(self.forward.sum())
        return forward, (self._ended - middle) - float(np.nansum(self.backward)) if self._turn is not None else 0.0

    def _entering(self, k: int):
        def enter(_, args: tuple, kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if self._turn is None:
                self._watch(hidden, k)
            self._entered = self.now()

        return enter

    def _leaving(self, k: int):
        def leave(_, args: tuple, result: Any) -> None:
            if self._turn is None:  # not when checkpointing runs the layer again
                self.forward[k] += self.now() - self._entered
                if k == len(self.layers) - 1:
                    self._watch(result[0] if isinstance(result, tuple) else result, k + 1)

        return leave

    def _watch(self, hidden: torch.Tensor, border: int) -> None:
        def arrive(_) -> None:
            self._arrived[border] = self.now()

        if hidden.requires_grad:
            hidden.register_hook(arrive)
