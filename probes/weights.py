"""Weight statistics, streamed layer by layer: spectrum and size of every matrix, no forward pass."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from probes.errors import ProbeFailure
from probes.measure import Measurement
from probes.registry import Column, probe

MAX_SIDE = 1024
_MIN_SIDE = 8
_MAX_EXPERTS = 4


@probe(
    "weights",
    effort="static",
    cost="reads the weights once; a symmetric eigenvalue problem a matrix",
    source="Spectrum (arXiv 2406.06623); heavy-tailed self-regularisation (Martin & Mahoney, arXiv 1810.01075); "
    "AlphaLoRA (arXiv 2410.10054)",
    columns=[
        Column(
            "spectral_snr",
            "ratio / largest singular value",
            "singular values above the Marchenko-Pastur edge over those below, as Spectrum ranks layers",
        ),
        Column(
            "tail_exponent",
            "power-law exponent",
            "Hill exponent of the squared singular values; larger = lighter tail, less trained",
        ),
        Column("relative_norm", "ratio to the mean layer", "root-mean-square weight against the mean layer's"),
        Column(
            "spectral_excess",
            "ratio",
            "largest singular value over the edge of random entries of the same variance; about 1 = untrained",
        ),
    ],
)
def measure_weights(measurement: Measurement) -> dict[str, np.ndarray]:
    """Medians over the matrices of each layer, (L,) a column; `relative_norm` is over all parameters of the layer.

    Matrices with a shorter side above 1024 are judged by a random block of the same shape ratio, the same for
    every layer, so absolute values then depend on that size (`tests/benchmarks/static_scan.py` has the agreement).
    Of fused experts (E, n, m) the first four are read. Misleads on freshly quantised weights, whose rounding noise
    looks like signal. Raises `ProbeFailure` for a layer without matrices.
    """
    weights, rms, spectra = measurement.weights, [], []
    for k in range(weights.n_layers):
        tensors = weights.read(k)
        matrices = [m for t in tensors.values() for m in as_matrices(t)]
        if not matrices:
            raise ProbeFailure(f"layer {k} has no weight matrix of at least {_MIN_SIDE} x {_MIN_SIDE}")
        rms.append(_root_mean_square(list(tensors.values())))
        found = [spectrum_of(m) for m in matrices]
        spectra.append([np.median([getattr(s, name) for s in found]) for name in ("snr", "tail_exponent", "excess")])
        measurement.tick()
    snr, tail, excess = np.array(spectra).T
    rms = np.array(rms)
    return {
        "spectral_snr": snr,
        "tail_exponent": tail,
        "relative_norm": rms / rms.mean(),
        "spectral_excess": excess,
    }


@dataclass(frozen=True)
class Spectrum:
    """Statistics of one matrix's singular values."""

    snr: float
    tail_exponent: float
    excess: float


def spectrum_of(matrix: torch.Tensor, max_side: int = MAX_SIDE) -> Spectrum:
    """Statistics of an (n, m) matrix, exact up to `max_side`, else of a random block with the same n : m.

    The excess is always the whole matrix's: in a block structure fades faster than noise, and a trained matrix would
    look random.
    """
    block = random_block(matrix, max_side)
    values = singular_values(block.double())
    largest = float(values[0]) if block is matrix else largest_singular_value(matrix)
    n, m = matrix.shape
    edge = float(matrix.float().std()) * (math.sqrt(n) + math.sqrt(m))  # of random entries, for large n and m
    excess = largest / edge if edge > 0 else 0.0
    return Spectrum(spectrum_snr(values, *block.shape), hill_exponent(values.square()), excess)


def largest_singular_value(matrix: torch.Tensor, steps: int = 12) -> float:
    """By power iteration in float32 from a fixed start, never above the true value; cost: 2 * `steps` products."""
    matrix = matrix.float()
    vector = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        vector = matrix.T @ (matrix @ vector)
        vector /= torch.linalg.vector_norm(vector).clamp(min=1e-30)
    return float(torch.linalg.vector_norm(matrix @ vector))


def singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """Singular values in falling order, (min(n, m),), through the Gram matrix of the shorter side (float64)."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def spectrum_snr(values: torch.Tensor, n: int, m: int) -> float:
    """Spectrum's signal-to-noise: sum above the edge over sum below, over the largest value; 0 for a zero matrix.

    The edge is sigma * (1 + sqrt(short / long)) with sigma the interquartile range of the singular values / 1.349,
    as Spectrum has it. Sigma there is not the entries' standard deviation, so random matrices do not score 0.
    """
    if values[0] <= 0:
        return 0.0
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype))
    edge = float(high - low) / 1.349 * (1 + math.sqrt(min(n, m) / max(n, m)))
    below = float(values[values <= edge].sum())
    if below == 0:  # every value is above: as if one smallest value were noise
        below = max(float(values[-1]), 1e-12 * float(values[0]))
    return float(values[values > edge].sum()) / below / float(values[0])


def hill_exponent(eigenvalues: torch.Tensor, share: float = 0.5) -> float:
    """1 + h / sum_i log(l_i / l_h) over the h largest of falling eigenvalues, h = share of them (Hill 1975)."""
    positive = eigenvalues[eigenvalues > 1e-12 * eigenvalues[0]] if eigenvalues[0] > 0 else eigenvalues[:0]
    h = max(2, int(len(positive) * share))
    if len(positive) < 3:
        return 0.0
    logs = torch.log(positive[: h - 1] / positive[h - 1])
    return 1 + (h - 1) / max(float(logs.sum()), 1e-12)


def as_matrices(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The matrices in a tensor: itself, or the first few of a stack; none for vectors and very small ones."""
    if tensor.ndim < 2 or min(tensor.shape[-2:]) < _MIN_SIDE:
        return []
    return [tensor] if tensor.ndim == 2 else list(tensor.reshape(-1, *tensor.shape[-2:])[:_MAX_EXPERTS])


def random_block(matrix: torch.Tensor, max_side: int) -> torch.Tensor:
    """`matrix`, or randomly chosen rows and columns of it so that the shorter side is `max_side`."""
    short = min(matrix.shape)
    if short <= max_side:
        return matrix
    generator = torch.Generator().manual_seed(0)
    n, m = (max(1, round(side * max_side / short)) for side in matrix.shape)
    rows = torch.randperm(matrix.shape[0], generator=generator)[:n]
    columns = torch.randperm(matrix.shape[1], generator=generator)[:m]
    return matrix[rows][:, columns]


def _root_mean_square(tensors: list[torch.Tensor]) -> float:
    squares = sum(float(torch.linalg.vector_norm(t, dtype=torch.float32)) ** 2 for t in tensors)
    return math.sqrt(squares / sum(t.numel() for t in tensors))
