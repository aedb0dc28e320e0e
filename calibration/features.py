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
POSITION = ("depth", "depth squared", "depth cubed", "first layer", "last layer")
RACE = ("race gain", "race gain against leader", "race place")


def features(table: LayerTable, race: Race | None, effort: str) -> dict[str, np.ndarray]:
    """Features of every layer by name, each (L,) with mean 0 within the policy.

    Position, then each column of the effort's probes as standard scores of its logarithm (where it is positive) within
    the policy, clipped at 3; a column that was not measured, or tells no layer from another, is 0. At effort "warmup"
    also the race: gain over the base policy at the layer's last rung (in score, and as standard scores), and its place.
    """
    found = position_features(table.n_layers)
    for name in list_columns("static" if effort == "static" else "probe"):
        if name != "relative_depth":
            found[name] = standard_scores(table.columns[name]) if name in table.columns else np.zeros(table.n_layers)
    if effort == "warmup":
        found |= race_features(race, table.n_layers)
    return found


def position_features(n_layers: int) -> dict[str, np.ndarray]:
    """Powers of relative depth, and whether a layer is at an end of the stack."""
    depth, ends = relative_depth(n_layers), np.eye(n_layers)[[0, -1]]
    values = (depth, depth**2, depth**3, *ends)
    return {name: value - value.mean() for name, value in zip(POSITION, values, strict=True)}


def race_features(race: Race | None, n_layers: int) -> dict[str, np.ndarray]:
    """What the race says of every layer; layers that did not take part are given the mean of those that did."""
    gains, behind, places = (np.full(n_layers, np.nan) for _ in range(3))
    order = race.order() if race is not None else []
    for place, layer in enumerate(order):
        _, standing = race.last_of(layer)
        gains[layer], behind[layer], places[layer] = standing.gain.value, standing.to_leader.value, -place
    values = (gains, standard_scores(behind), standard_scores(places))
    return {name: _filled(value) for name, value in zip(RACE, values, strict=True)}


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
