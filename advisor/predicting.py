"""From what was measured on a policy to what its layers are expected to contribute."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.features import as_matrix, feature_names, features
from calibration.prediction import Prediction
from calibration.predictor import SHIPPED, Predictor
from calibration.race import Race
from probes.errors import UsageError
from probes.table import LayerTable

PAIRS = "pairs"  # folder beside the predictors that advisor calibrate wrote


@dataclass(frozen=True)
class Predicted:
    """A prediction with what it was made by, as plain JSON."""

    prediction: Prediction
    by: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """What made the prediction, and of it what its layers do not say."""
        said = self.prediction
        level = {"level": round(float(said.level), 6), "level_half": round(float(said.level_half), 6)}
        return {**self.by, **level, "unlike": said.unlike}

    @classmethod
    def from_dict(cls, found: dict[str, Any], layers: list[dict[str, Any]], race: Race | None) -> "Predicted":
        """The prediction that `as_dict` and the records of its layers tell of."""
        by = dict(found)
        rest = {name: by.pop(name) for name in ("level", "level_half", "unlike")}
        names = ("advantage", "advantage_low", "advantage_high", "p_best", "p_top3")
        columns = {name: np.array([layer[name] for layer in layers]) for name in names}
        costs = None if layers[0]["step_cost"] is None else np.array([layer["step_cost"] for layer in layers])
        return cls(Prediction(**columns, **rest, idle=frozenset(race.idle() if race else ()), costs=costs), by)


def find_predictor(effort: str, decoding: str, place: str | Path | None) -> Predictor:
    """The predictor in `place` (None: the one that comes with the advisor).

    Raises `UsageError` where it is for something else, or was fitted on other features than this program measures.
    """
    found = Predictor.find(effort, decoding, SHIPPED if place is None else Path(place).expanduser())
    differing = sorted(set(found.names) ^ set(feature_names(effort)))
    if found.names != feature_names(effort):
        raise UsageError(
            f"The predictor was fitted on other features than are measured here (differing: {', '.join(differing)}): "
            "make it again with advisor calibrate."
        )
    return found


def predict(predictor: Predictor, table: LayerTable, race: Race | None, costs: np.ndarray | None = None) -> Predicted:
    """What `predictor` says of the layers of `table`, and of `race` at effort "warmup"; `costs` decide near-ties."""
    found = features(table, race, predictor.effort)
    said = predictor.predict(as_matrix(found), race.idle() if race else (), race)
    return Predicted(replace(said, costs=costs), predictor.facts)


def own_pairs(place: str | Path | None) -> list[Path]:
    """Where `advisor calibrate` kept the pairs that it measured; none with the shipped predictor."""
    if place is None:
        return []
    place = Path(place).expanduser()
    return [(place if place.is_dir() else place.parent) / PAIRS]


def expected_order(table: LayerTable, decoding: str) -> list[int]:
    """Layers by what the shipped predictor expects after the probes, best first: who races where not all can."""
    predictor = find_predictor("probe", decoding, None)
    advantage = predictor.advantage(as_matrix(features(table, None, "probe")))
    return sorted(range(table.n_layers), key=lambda k: (-advantage[k], -k))
