"""Gradient-type numbers of every layer from one backward pass of the policy-gradient objective."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from probes.errors import ProbeFailure
from probes.measure import Measurement
from probes.registry import Column, probe

ADAM_EPS = 1e-8


@probe(
    "gradients",
    effort="probe",
    cost="one forward and one backward pass over the rollouts, all layers together",
    source="gradient norm as aletheia-lora 0.1.2 ranks layers; Auto-RGN (Lee et al., arXiv 2210.11466); empirical "
    "Fisher (Kunstner et al., arXiv 1905.12558); gradient noise (McCandlish et al., arXiv 1812.06162)",
    columns=[
        Column("grad_norm", "gain / weight", "norm of the mean gradient over prompt groups"),
        Column("relative_grad_norm", "gain / weight²", "that norm over the norm of the layer's weights (Auto-RGN)"),
        Column("fisher", "gain² / weight²", "mean squared norm of a group's gradient: trace of the empirical Fisher"),
        Column("grad_snr", "ratio, 1 = noise", "squared mean gradient over the variance of that mean between groups"),
        Column("cross_half_cosine", "-1 to 1", "cosine of the mean gradients of two halves of the groups"),
        Column(
            "adam_gain",
            "gain / learning rate",
            "gain predicted on one half for one Adam step taken by the other, mean of both ways",
        ),
    ],
)
def measure_gradients(measurement: Measurement) -> dict[str, np.ndarray]:
    """Statistics of the group gradients g_i = dJ_i / dtheta_k, (L,) a column.

    J_i is the group's policy-gradient objective (`probes.objective`, larger is better); groups without reward spread
    have g_i = 0 and are left out. Memory: three copies of one layer's gradients. With the wrong sign under sampled
    decoding, and grows with a layer's size where layers differ in it. Raises `ProbeFailure` below four groups.
    """
    tape, n_layers = measurement.tape, measurement.policy.n_layers
    if len(tape.batches) < 4:
        raise ProbeFailure(
            f"only {len(tape.batches)} prompt groups have reward spread; two halves of two need at least 4"
        )
    bare = [k for k in range(n_layers) if not tape.parameters(k)]
    if bare:
        raise ProbeFailure(f"layers {bare} have no floating-point weights: quantised weights have no gradients")
    statistics: list[GradientStatistics | None] = [None] * n_layers
    for k, gradients in tape.backward(measurement.tick):
        statistics[k] = fold_gradients(gradients, tape.parameters(k))
    return {
        name: np.array([getattr(s, name) for s in statistics])
        for name in ("grad_norm", "relative_grad_norm", "fisher", "grad_snr", "cross_half_cosine", "adam_gain")
    }


@dataclass(frozen=True)
class GradientStatistics:
    """One layer's numbers, named and defined as the probe's columns."""

    grad_norm: float
    relative_grad_norm: float
    fisher: float
    grad_snr: float
    cross_half_cosine: float
    adam_gain: float


@dataclass
class _Half:
    """Sum of the gradients of every second group: one float32 tensor a parameter."""

    sums: list[torch.Tensor] = field(default_factory=list)
    n: int = 0


def fold_gradients(
    gradients: Iterable[Sequence[torch.Tensor | None]], parameters: Sequence[torch.Tensor]
) -> GradientStatistics:
    """Statistics of a layer from its group gradients, which are folded in one at a time and freed.

    Even groups are one half, odd groups the other. All are 0 where every gradient is 0 (no signal).
    """
    halves = [_Half([torch.zeros(p.shape, device=p.device) for p in parameters]) for _ in range(2)]
    squared = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    for i, group in enumerate(gradients):
        half = halves[i % 2]
        half.n += 1
        for total, gradient in zip(half.sums, group, strict=True):
            if gradient is not None:
                values = gradient.float().reshape(-1)
                squared += torch.dot(values, values).double()
                total.view(-1).add_(values)
    n = halves[0].n + halves[1].n
    for half in halves:
        for total in half.sums:
            total /= half.n
    a, b = halves[0].sums, halves[1].sums
    norm_a, norm_b, across = _dot(a, a), _dot(b, b), _dot(a, b)
    share_a, share_b = halves[0].n / n, halves[1].n / n
    mean_squared = share_a**2 * norm_a + share_b**2 * norm_b + 2 * share_a * share_b * across
    fisher = float(squared) / n
    noise = (fisher - mean_squared) / (n - 1)  # variance of the mean gradient, summed over weights
    weight_norm = sum(float(torch.linalg.vector_norm(p.detach(), dtype=torch.float32)) ** 2 for p in parameters) ** 0.5
    norm = max(mean_squared, 0.0) ** 0.5
    return GradientStatistics(
        grad_norm=norm,
        relative_grad_norm=norm / weight_norm if weight_norm > 0 else 0.0,
        fisher=fisher,
        grad_snr=mean_squared / noise if noise > 0 else 0.0,
        cross_half_cosine=across / (norm_a * norm_b) ** 0.5 if norm_a * norm_b > 0 else 0.0,
        adam_gain=(_adam_gain(a, b) + _adam_gain(b, a)) / 2,
    )


def _dot(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    return sum(float(torch.dot(x.view(-1), y.view(-1))) for x, y in zip(a, b, strict=True))


def _adam_gain(step: Sequence[torch.Tensor], score: Sequence[torch.Tensor]) -> float:
    """Gain per learning rate: Adam's first step g / (|g| + eps) by one half, along the other half's gradient."""
    return _dot([g / g.abs().add_(ADAM_EPS) for g in step], score)
