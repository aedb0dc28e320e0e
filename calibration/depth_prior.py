"""Where good layers have been found so far: contribution against relative depth, fitted on the published sweeps."""

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from probes.depth import relative_depth

# Chosen by leave-one-model-out error over {3, 4, 5} knots x {0.01, 0.1, 1} on the seven published sweeps
# (`python tests/benchmarks/depth_prior.py`).
KNOTS, RIDGE = 4, 0.1


@cache
def published_sweeps() -> list[dict[str, Any]]:
    """The sweeps of arXiv 2607.01232 as plain records: model, n_layers, and contribution by layer."""
    text = resources.files("calibration").joinpath("corpus/published_sweeps.json").read_text(encoding="utf-8")
    return json.loads(text)["sweeps"]


def depth_prior(n_layers: int, decoding: str) -> np.ndarray:
    """Contribution expected from position alone, (L,), larger is better.

    greedy: a ridge spline through the published contributions, in units of C. sampled: relative depth itself, an
    order and not a contribution, since scoring by sampling rewards late layers for sharpening the distribution and
    no sampled sweep is published. Source: arXiv 2607.01232. Misleads on the first layers, where the published
    models disagree (C from -0.51 to 0.89).
    """
    depth = relative_depth(n_layers)
    return depth if decoding == "sampled" else fit_prior(published_sweeps()).predict(depth[:, None])


def fit_prior(sweeps: list[dict[str, Any]], knots: int = KNOTS, ridge: float = RIDGE):
    """A fitted scikit-learn regressor from relative depth (n, 1) to contribution; every sweep has the same weight."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    depth, contribution, weight = [], [], []
    for sweep in sweeps:
        for entry in sweep["layers"]:
            depth.append([entry["layer"] / (sweep["n_layers"] - 1)])
            contribution.append(entry["contribution"])
            weight.append(1 / len(sweep["layers"]))
    at = np.linspace(0, 1, knots)[:, None]
    model = make_pipeline(SplineTransformer(degree=2, knots=at, include_bias=False), Ridge(ridge))
    return model.fit(np.array(depth), np.array(contribution), ridge__sample_weight=np.array(weight))
