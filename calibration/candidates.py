"""The regressors that compete to be the predictor, simplest first.

Each is fitted on rows (sweep number, features...) -> advantage of a layer over the mean layer of its sweep. The first
column tells which rows are of one sweep; only the pairwise ranking looks at it.
"""

from collections.abc import Callable

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from calibration.features import POSITION, RACE

_POSITIONS = slice(1, 1 + len(POSITION))  # columns after the sweep number
_RACES = slice(1, 1 + len(POSITION) + len(RACE))


class PairwiseRanking(RegressorMixin, BaseEstimator):
    """Logistic regression on differences between two layers of a sweep, weighted by how far their targets are apart.

    Its score is brought to the scale of the target by a straight line.
    """

    def __init__(self, c: float = 0.1) -> None:
        self.c = c

    def fit(self, x: np.ndarray, y: np.ndarray) -> "PairwiseRanking":
        x, y = np.asarray(x), np.asarray(y)
        self.scale_ = StandardScaler().fit(x[:, 1:])
        scaled = self.scale_.transform(x[:, 1:])
        i, j = np.nonzero((x[:, :1] == x[:, 0]) & (y[:, None] > y))
        sign = np.where(np.arange(len(i)) % 2, 1, -1)  # both classes, or there is nothing to separate
        differences, weights = sign[:, None] * (scaled[i] - scaled[j]), y[i] - y[j]
        model = LogisticRegression(C=self.c, fit_intercept=False, max_iter=500)
        self.coef_ = model.fit(differences, sign, sample_weight=weights / weights.mean()).coef_[0]
        score = scaled @ self.coef_
        self.slope_ = float(score @ y / max(score @ score, 1e-12))
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.slope_ * (self.scale_.transform(np.asarray(x)[:, 1:]) @ self.coef_)


def _columns(chosen: slice, *steps):
    return make_pipeline(ColumnTransformer([("chosen", "passthrough", chosen)]), *steps)


def _ridge(alpha: float, chosen: slice = slice(1, None)):
    return _columns(chosen, StandardScaler(), Ridge(alpha))


def _gaussian_process():
    kernel = ConstantKernel(0.5, "fixed") * RBF(5.0, "fixed") + WhiteKernel(0.5, "fixed")
    return _columns(slice(1, None), StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True))


def _trees():
    trees = HistGradientBoostingRegressor(
        max_iter=60, learning_rate=0.08, max_leaf_nodes=8, min_samples_leaf=20, random_state=0
    )
    return _columns(slice(1, None), trees)


USED = {"depth curve": len(POSITION), "depth and race": len(POSITION) + len(RACE)}
"""How many of the features a candidate looks at, where not all."""

CANDIDATES: dict[str, Callable[[], BaseEstimator]] = {
    "depth curve": lambda: _ridge(1.0, _POSITIONS),
    "depth and race": lambda: _ridge(30.0, _RACES),
    "ridge, strong": lambda: _ridge(300.0),
    "ridge": lambda: _ridge(30.0),
    "pairwise ranking": PairwiseRanking,
    "Gaussian process": _gaussian_process,
    "boosted trees": _trees,
}
