"""Fit a predictor for every effort and decoding on a corpus, choosing the candidate by families left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.corpus.records import Pair
from calibration.examples import make_examples, published_examples
from calibration.features import feature_names
from calibration.predictor import Predictor, choose_candidate
from probes.errors import UsageError
from probes.registry import DECODINGS, EFFORTS


@dataclass(frozen=True)
class Fitted:
    """A predictor, and the mean squared error of every candidate on families that it was not fitted on."""

    predictor: Predictor
    errors: dict[str, float]


def fit_predictors(
    pairs: Sequence[Pair], folder: Path | None = None, on_fitted: Callable[[Fitted], None] = lambda fitted: None
) -> list[Fitted]:
    """One predictor an effort and decoding, written to `folder`. Cost: about half a minute for 60 pairs.

    Raises `UsageError` where too few families have sweeps with a known gain.
    """
    found = []
    for decoding in DECODINGS:
        for effort in EFFORTS:
            examples = make_examples(pairs, effort, decoding) + published_examples(effort, decoding)
            try:
                candidate, errors = choose_candidate(examples)
            except UsageError as error:
                raise UsageError(f"No predictor for {decoding} decoding: {error}") from error
            predictor = Predictor(effort, decoding, candidate, feature_names(effort), examples)
            fitted = Fitted(predictor, errors)
            on_fitted(fitted)
            found.append(fitted)
    for one in found if folder is not None else []:  # all or none
        one.predictor.save(folder / Predictor.file_name(one.predictor.effort, one.predictor.decoding))
    return found
