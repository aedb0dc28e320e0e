"""What a predictor sees of a layer: position and probes, made comparable across policies.

Absolute values of a probe differ by orders of magnitude between policies, so each column is taken against the other
layers of its own policy.
"""

from collections.abc import Mapping

import numpy as np

from calibration.race import Race
from probes.depth import relative_depth
from probes.registry import list_columns
from probes.table import LayerTable, varies

_CLIP = 3.0  # standard deviations: one wild layer must not decide
POSITION = (
    "depth",
    "depth squared",
    "depth cubed",
    "first layer",
    "last layer",
    "depth by length",
    "depth squared by length",
)
RACE = ("race gain", "race gain of neighbours", "race gain curve")


def features(table: LayerTable, race: Race | None, effort: str) -> dict[str, np.ndarray]:
    """Features of every layer by name, each (L,) with mean 0 within the policy.

    Position; the race (0 without one, see `race_features`); then each column of the effort's probes as standard scores
    of its logarithm (where it is positive) within the policy, clipped at 3; a column that was not measured, or tells no
    layer from another, is 0.
    """
    found = position_features(table.n_layers) | race_features(race, table.n_layers)
    for name in list_columns("static" if effort == "static" else "probe"):
        if name != "relative_depth":
            found[name] = standard_scores(table.columns[name]) if name in table.columns else np.zeros(table.n_layers)
    return found


def feature_names(effort: str) -> list[str]:
    """Names of the features at an effort, in order."""
    return list(features(LayerTable(2), None, effort))


def position_features(n_layers: int) -> dict[str, np.ndarray]:
    """Powers of relative depth, whether a layer is at an end of the stack, and how the curve changes with its length.

    Length counts in doublings from 8 layers: short stacks and long ones have other profiles.
    """
    depth, ends = relative_depth(n_layers), np.eye(n_layers)[[0, -1]]
    length = np.log2(n_layers / 8)
    values = (depth, depth**2, depth**3, *ends, length * depth, length * depth**2)
    return {name: value - value.mean() for name, value in zip(POSITION, values, strict=True)}


def race_features(race: Race | None, n_layers: int) -> dict[str, np.ndarray]:
    """What the race says of every layer, as standard scores: its own, with those of its neighbours, along a curve.

    A layer's figure is how far its better arm was behind the leader, mean over the rungs that it took part in. One such
    figure is mostly noise, but contribution changes little from a layer to the next: the mean with the neighbours
    (weights 1, 2, 1) and the quadratic in depth through all figures are much less so. Layers that did not take part are
    given the mean of those that did.
    """
    behind: list[list[float]] = [[] for _ in range(n_layers)]
    for rung in race.rungs if race is not None else []:
        best: dict[int, float] = {}
        for standing in rung.standings:
            best.setdefault(standing.layer, standing.to_leader.value)
        for layer, value in best.items():
            behind[layer].append(value)
    own = _filled(np.array([np.mean(values) if values else np.nan for values in behind]))
    padded, depth = np.pad(own, 1, mode="edge"), relative_depth(n_layers)
    around = (padded[:-2] + 2 * own + padded[2:]) / 4
    curve = np.polyval(np.polyfit(depth, own, 2), depth) if n_layers > 3 else own
    return dict(zip(RACE, map(standard_scores, (own, around, curve)), strict=True))


def standard_scores(values: np.ndarray) -> np.ndarray:
    """(L,) with mean 0 and deviation 1 over the layers that have a value, of the logarithm where all are positive."""
    known = ~np.isnan(values)
    if known.sum() < 2 or not varies(values[known]):
        return np.where(known, 0.0, np.nan)
    scale = np.log(values) if (values[known] > 0).all() else values
    score = (scale - np.nanmean(scale)) / np.nanstd(scale)
    return np.clip(score, -_CLIP, _CLIP)


def as_matrix(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """(L, F), columns in the order of the names."""
    return np.column_stack(list(found.values()))


def _filled(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values - np.nanmean(values)) if (~np.isnan(values)).any() else np.zeros(len(values))
