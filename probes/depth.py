"""Relative depth: where a layer stands. Free, and the baseline that every other probe must beat."""

import numpy as np

from probes.measure import Measurement
from probes.registry import Column, probe


@probe(
    "depth",
    effort="static",
    cost="none",
    source="position rules of arXiv 2607.01232",
    columns=[Column("relative_depth", "0 first to 1 last layer", "position in the stack")],
)
def measure_depth(measurement: Measurement) -> dict[str, np.ndarray]:
    """k / (L - 1) for layer k of L, (L,), from 0 to 1; 0 for a single layer. Knows nothing of weights or reward."""
    return {"relative_depth": relative_depth(measurement.weights.n_layers)}


def relative_depth(n_layers: int) -> np.ndarray:
    """(L,) positions from 0 (first layer) to 1 (last)."""
    return depth_of(np.arange(n_layers), n_layers)


def depth_of(layers: int | np.ndarray, n_layers: int) -> float | np.ndarray:
    """Position of a layer, or of each of `layers`, from 0 (first) to 1 (last); 0 for a single layer."""
    return layers / max(1, n_layers - 1)
