"""Fit a predictor for every effort and decoding on a corpus, choosing the candidate by families left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.candidates import CANDIDATES
from calibration.corpus.records import Pair
from calibration.examples import Example, make_examples, published_examples
from calibration.features import feature_names
from calibration.predictor import Predictor, fit, with_sweep
from probes.errors import UsageError
from probes.registry import DECODINGS, EFFORTS

_MIN_FAMILIES = 3


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


def choose_candidate(examples: Sequence[Example]) -> tuple[str, dict[str, float]]:
    """The simplest candidate within noise of the best, and every candidate's error, by leaving a family out.

    The error is the mean squared error of advantages, each sweep weighing the same; the noise is the standard error of
    the paired difference to the best over families. Raises `UsageError` with fewer than three families.
    """
    families = sorted({example.family for example in examples})
    if len(families) < _MIN_FAMILIES:
        raise UsageError(
            f"The sweeps are of {len(families)} model families ({', '.join(families)}), at least {_MIN_FAMILIES} are "
            "needed to judge predictions on families that were left out: add sweeps of others."
        )
    errors: dict[str, np.ndarray] = {}
    for name in CANDIDATES:
        by_family = []
        for family in families:
            model = fit(name, [e for e in examples if e.family != family])
            own = [e for e in examples if e.family == family]
            said = [model.predict(with_sweep(e.x, -1)) for e in own]
            squares = [np.mean((e.advantage - (s - s.mean())) ** 2) for e, s in zip(own, said, strict=True)]
            by_family.append(np.mean(squares))
        errors[name] = np.array(by_family)
    best = min(errors, key=lambda name: errors[name].mean())
    for name in CANDIDATES:
        worse = errors[name] - errors[best]
        if worse.mean() <= worse.std(ddof=1) / len(worse) ** 0.5:
            break
    return name, {name: float(values.mean()) for name, values in errors.items()}
