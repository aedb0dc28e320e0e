"""The layer table: L rows, a column per probe output, and the reasons for what could not be measured."""

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

from probes.errors import ProbeFailure


@dataclass
class LayerTable:
    """``columns`` name -> (L,) finite values; ``failures`` probe -> why it has no columns; ``seconds`` per probe."""

    n_layers: int
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Add new columns, all or none; each must be (L,) and finite, else `ProbeFailure`."""
        checked = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
        for name, values in checked.items():
            if name in self.columns:
                raise ProbeFailure(f"column '{name}' is already that of another probe")
            if values.shape != (self.n_layers,):
                raise ProbeFailure(f"column '{name}' has shape {values.shape}, expected ({self.n_layers},)")
            if not np.isfinite(values).all():
                bad = np.flatnonzero(~np.isfinite(values)).tolist()
                raise ProbeFailure(f"column '{name}' is not finite at layers {bad}")
        self.columns |= checked

    def row(self, k: int) -> dict[str, float]:
        """Every value of layer k."""
        return {name: float(values[k]) for name, values in self.columns.items()}


def varies(values: np.ndarray) -> bool:
    """Whether a column tells any layer from another (beyond rounding)."""
    return bool(np.ptp(values) > 1e-9 * max(1e-300, float(np.abs(values).max())))


def depth_correlation(values: np.ndarray) -> float | None:
    """Spearman correlation of a column with depth: how far it only says how deep a layer is. None if constant."""
    return float(spearmanr(values, np.arange(len(values))).statistic) if varies(values) else None
