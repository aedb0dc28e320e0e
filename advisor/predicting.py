"""From what was measured on a policy to what its layers are expected to contribute."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.features import as_matrix, feature_names, features
from calibration.predictor import SHIPPED, Prediction, Predictor
from calibration.race import Race
from probes.errors import UsageError
from probes.table import LayerTable

PAIRS = "pairs"  # folder beside the predictors that advisor calibrate wrote


@dataclass(frozen=True)
class Predicted:
    """A prediction with what it was made by, as plain JSON."""

    prediction: Prediction
    by: dict[str, Any]


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


def predict(predictor: Predictor, table: LayerTable, race: Race | None) -> Predicted:
    """What `predictor` says of the layers of `table`, and of `race` at effort "warmup"."""
    found = features(table, race, predictor.effort)
    return Predicted(predictor.predict(as_matrix(found), race.idle() if race else (), race), predictor.facts)


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
