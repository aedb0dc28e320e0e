"""How far a sweep agrees with itself: the ceiling for whatever predicts it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.agreement import spearman
from calibration.runs import FULL
from probes.registry import DECODINGS

if TYPE_CHECKING:
    from calibration.corpus.records import Pair

_SPLITS = 20


def reliability(pair: "Pair") -> dict[str, Any]:
    """By decoding, the Spearman correlation of the layers' scores between seeds, and between halves of the prompts."""
    found = {}
    for decoding in DECODINGS:
        between = pair.sweep(decoding).seed_agreement(decoding)
        found[decoding] = {
            "seeds": None if between is None else round(between, 4),
            "prompt_halves": round(split_half(pair, decoding), 4),
        }
    return found


def split_half(pair: "Pair", decoding: str) -> float:
    """Spearman correlation of the layers' scores between two halves of the held-out prompts, mean over 20 splits."""
    arms = pair.sweep(decoding).scores(decoding).arms
    scores = np.array([values.mean(0) for name, values in arms.items() if name != FULL])
    rng, found = np.random.default_rng(0), []
    for _ in range(_SPLITS):
        order = rng.permutation(scores.shape[1])
        half = len(order) // 2
        found.append(spearman(scores[:, order[:half]].mean(1), scores[:, order[half:]].mean(1)))
    return float(np.mean(found))
