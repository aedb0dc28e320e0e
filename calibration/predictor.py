"""The calibrated predictor: from what was measured on a policy to what each layer would contribute.

A regressor predicts the advantage of a layer over the mean layer of its policy; the level that is added is the mean of
the corpus. Whole families are left out wherever an error is judged: to choose among candidates, and to set the width of
the intervals (cross-conformal, MAPIE). P(best) counts how often a layer comes out best when policies and seeds are
resampled and the errors of whole left-out sweeps are added.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from calibration.candidates import CANDIDATES, USED
from calibration.contribution import LEVEL
from calibration.examples import Example
from calibration.features import POSITION
from calibration.prediction import Prediction
from calibration.race import ANSWERS, CALIBRATED, EXPECTED, Race
from probes.errors import UsageError

SCHEMA_VERSION = 1
DRAWS = 200


SHIPPED = Path(__file__).parent / "predictors"


class Predictor:
    """A predictor for one effort and decoding, fitted on `examples` by the candidate of this name.

    ``names`` are the features in their order, ``race_steps`` the rungs of the races that they come from. Fitting is
    done when first needed and takes about a second.
    """

    def __init__(
        self,
        effort: str,
        decoding: str,
        candidate: str,
        names: Sequence[str],
        examples: Sequence[Example],
        race_steps: Sequence[int] = CALIBRATED.rungs,
    ) -> None:
        self.race_steps = list(race_steps)
        self.effort, self.decoding, self.candidate = effort, decoding, candidate
        self.names, self.examples = list(names), list(examples)

    @classmethod
    def file_name(cls, effort: str, decoding: str) -> str:
        return f"{effort}-{decoding}.json.gz"

    @classmethod
    def find(cls, effort: str, decoding: str, place: Path = SHIPPED) -> "Predictor":
        """The predictor for an effort and decoding in `place`: a folder of `advisor calibrate`, or one file.

        Raises `UsageError` where it is not there, or is for another effort or decoding.
        """
        file = place / cls.file_name(effort, decoding) if place.is_dir() else place
        if not file.exists():
            raise UsageError(
                f"There is no predictor '{file}': give the folder that advisor calibrate wrote, or one of its files."
            )
        found = cls.load(file)
        if (found.effort, found.decoding) != (effort, decoding):
            raise UsageError(
                f"The predictor '{file}' is for effort {found.effort} and {found.decoding} decoding, not for {effort} "
                f"and {decoding}: give '{cls.file_name(effort, decoding)}', or the whole folder."
            )
        return found

    @property
    def families(self) -> list[str]:
        return sorted({example.family for example in self.examples})

    @property
    def members(self) -> list[str]:
        return sorted({example.member for example in self.examples})

    @property
    def facts(self) -> dict[str, Any]:
        """What it is and what it was fitted on, as plain JSON."""
        return {
            "effort": self.effort,
            "decoding": self.decoding,
            "candidate": self.candidate,
            "sweeps": len(self.examples),
            "policies": len(self.members),
            "families": self.families,
            "data_sha256": self.data_hash,
        }

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the examples."""
        return hashlib.sha256(json.dumps([_plain(e) for e in self.examples]).encode()).hexdigest()

    def predict(self, x: np.ndarray, idle: Collection[int] = (), race: Race | None = None) -> Prediction:
        """What to expect of the layers with features `x` (L, F), which `race` has gone into.

        `idle` layers (`Race.idle`) come last, and none is best. Raises `UsageError` for another number of features.
        """
        idle = frozenset(idle) if len(set(idle)) < len(x) else frozenset()
        if x.shape[1] != len(self.names):
            raise UsageError(f"{x.shape[1]} features were given, this predictor was fitted on {len(self.names)}.")
        rows, advantage = with_sweep(x, -1), self.advantage(x)
        ends = self._conformal.predict_interval(rows)[1][:, :, 0]
        unlike, factor = self._unlike(x)
        steps = [rung.step for rung in race.rungs] if race else []
        if steps != self.race_steps[: len(steps)]:
            unlike.append(f"a race scored after {_listed(steps)} steps (the corpus has {_listed(self.race_steps)})")
            factor += 0.25 * (1 + abs(np.log2(steps[-1] / self.race_steps[-1])))
        usual = EXPECTED if self.decoding == "sampled" else ANSWERS
        if race and race.scored_by != usual:
            unlike.append(f"a race scored by {race.scored_by} (those of the corpus by {usual})")
            factor += 0.5
        below = np.maximum(advantage - ends[:, 0], 0.0)
        above = np.maximum(ends[:, 1] - advantage, 0.0)
        p_best, p_top3 = self._chances(x, idle, factor)
        level, spread = self._level
        return Prediction(
            advantage,
            advantage - factor * below,
            advantage + factor * above,
            level,
            factor * spread,
            p_best,
            p_top3,
            unlike,
            idle,
        )

    def advantage(self, x: np.ndarray) -> np.ndarray:
        """Expected contribution over that of the policy's mean layer, (L,)."""
        found = self._fitted.predict(with_sweep(x, -1))
        return found - found.mean()

    @cached_property
    def _fitted(self):
        return fit(self.candidate, self.examples)

    @cached_property
    def _conformal(self):
        """Cross-conformal intervals with whole families left out."""
        from mapie.regression import CrossConformalRegressor
        from sklearn.model_selection import LeaveOneGroupOut

        x, y = as_rows(self.examples)
        groups = np.repeat([e.family for e in self.examples], [e.n_layers for e in self.examples])
        conformal = CrossConformalRegressor(
            CANDIDATES[self.candidate](), confidence_level=LEVEL, method="plus", cv=LeaveOneGroupOut(), random_state=0
        )
        return conformal.fit_conformalize(x, y, groups=groups)

    @cached_property
    def _errors(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Measured less predicted advantage of every whole sweep, its family left out: a quadratic in relative depth,
        and what that leaves of each layer."""
        found = []
        for example in self.examples:
            if not example.is_whole:
                continue
            own = self._left_out[example.family].predict(with_sweep(example.x, -1))
            error = example.advantage - (own - own.mean())
            depth = np.linspace(0, 1, len(error))
            curve = np.polyfit(depth, error, min(2, len(error) - 1))
            rest = error - np.polyval(curve, depth)
            found.append((curve, rest * (len(rest) / max(1, len(rest) - 3)) ** 0.5))  # three were fitted
        return found

    @cached_property
    def _left_out(self) -> dict[str, Any]:
        return {f: fit(self.candidate, [e for e in self.examples if e.family != f]) for f in self.families}

    @cached_property
    def _resampled(self) -> list:
        """Fits on policies, and seeds of their sweeps, drawn with replacement."""
        rng, members, found = np.random.default_rng(0), self.members, []
        by_member = {m: [e for e in self.examples if e.member == m] for m in members}
        for _ in range(DRAWS):
            drawn = [e for m in rng.choice(members, len(members)) for e in by_member[m]]
            targets = [e.by_seed[rng.integers(len(e.by_seed), size=len(e.by_seed))].mean(0) for e in drawn]
            found.append(fit(self.candidate, drawn, [t - t.mean() for t in targets]))
        return found

    @cached_property
    def _level(self) -> tuple[float, float]:
        """Mean contribution of the layers of a sweep, and half the width of its interval for another policy."""
        whole = [e for e in self.examples if e.is_whole]
        by_member = [np.mean([e.level for e in whole if e.member == m]) for m in sorted({e.member for e in whole})]
        distances = np.abs(np.array([e.level for e in whole]) - np.mean(by_member))
        n = len(distances)
        half = np.quantile(distances, min(1.0, LEVEL * (n + 1) / n), method="higher")
        return float(np.mean(by_member)), float(half)

    def _chances(self, x: np.ndarray, idle: Collection[int], factor: float) -> tuple[np.ndarray, np.ndarray]:
        rng, rows, n = np.random.default_rng(0), with_sweep(x, -1), len(x)
        best, top = np.zeros(n), np.zeros(n)
        depth = np.linspace(0, 1, n)
        for model in self._resampled:
            predicted = model.predict(rows)
            for curve, rest in (self._errors[i] for i in rng.integers(len(self._errors), size=5)):
                # Neighbouring layers err together, so the smooth part of an error is a whole sweep's.
                drawn = predicted + factor * (np.polyval(curve, depth) + rng.choice(rest, n))
                drawn[list(idle)] = -np.inf
                ranking = np.argsort(-drawn)
                best[ranking[0]] += 1
                top[ranking[:3]] += 1
        return best / best.sum(), top / best.sum()

    def _unlike(self, x: np.ndarray) -> tuple[list[str], float]:
        """What is outside the range of the corpus, and the factor on the intervals for it."""
        found, factor = [], 1.0
        lengths = [e.stack for e in self.examples]
        if not min(lengths) <= len(x) <= max(lengths):
            found.append(f"{len(x)} layers (the corpus has {min(lengths)} to {max(lengths)})")
            factor += abs(np.log2(len(x) / np.clip(len(x), min(lengths), max(lengths))))
        seen = np.concatenate([e.x for e in self.examples])
        low, high = seen.min(0), seen.max(0)
        beyond = np.maximum(low - x.min(0), x.max(0) - high) / np.maximum(high - low, 1e-12)
        beyond[: len(POSITION)] = 0.0  # follows from the length
        beyond[USED.get(self.candidate, len(beyond)) :] = 0.0
        for i in np.flatnonzero(beyond > 0.05):  # of the range: what is hardly outside is not worth a word
            found.append(
                f"{self.names[i]} of {x[:, i].min():.2g} to {x[:, i].max():.2g} standard deviations from the mean "
                f"layer (in the corpus {low[i]:.2g} to {high[i]:.2g})"
            )
        return found, float(factor + beyond.max(initial=0.0))

    def save(self, file: Path) -> None:
        """Write the predictor as compressed JSON: the examples and the name of what is fitted on them."""
        told = {
            "schema_version": SCHEMA_VERSION,
            "effort": self.effort,
            "decoding": self.decoding,
            "candidate": self.candidate,
            "features": self.names,
            "race_steps": self.race_steps,
            "data_sha256": self.data_hash,
            "examples": [_plain(example) for example in self.examples],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(told, separators=(",", ":"), allow_nan=False)
        file.write_bytes(gzip.compress(text.encode(), mtime=0))

    @classmethod
    def load(cls, file: Path) -> "Predictor":
        """Read a predictor. Raises `UsageError` for a file that is damaged, changed, or of another schema version."""
        try:
            told = json.loads(gzip.decompress(Path(file).read_bytes()))
            version = told["schema_version"]
            if version != SCHEMA_VERSION:
                raise UsageError(
                    f"The predictor '{file}' has schema version {version}, this program reads {SCHEMA_VERSION}: make "
                    "it again with advisor calibrate."
                )
            examples = [_example(example) for example in told["examples"]]
            names = ("effort", "decoding", "candidate", "features")
            found = cls(*(told[name] for name in names), examples, told["race_steps"])
            known, same = told["candidate"] in CANDIDATES, told["data_sha256"] == found.data_hash
        except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
            raise UsageError(
                f"'{file}' is not a predictor of the advisor ({error}): give one that advisor calibrate wrote."
            ) from error
        if not known or not same:
            reason = "its data do not fit their hash" if known else f"candidate '{found.candidate}' is unknown"
            raise UsageError(f"The predictor '{file}' cannot be used: {reason}. Make it again with advisor calibrate.")
        return found


def fit(candidate: str, examples: Sequence[Example], targets: Sequence[np.ndarray] | None = None):
    """A fitted regressor; `targets` are advantages by example where not the measured ones."""
    x, y = as_rows(examples, targets)
    return CANDIDATES[candidate]().fit(x, y)


def as_rows(examples: Sequence[Example], targets: Sequence[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 1 + F) and advantages (n,) of all layers of all examples."""
    targets = targets if targets is not None else [example.advantage for example in examples]
    return np.concatenate([with_sweep(e.x, i) for i, e in enumerate(examples)]), np.concatenate(targets)


def with_sweep(x: np.ndarray, number: int) -> np.ndarray:
    """Features with the sweep's number in front."""
    return np.column_stack([np.full(len(x), number), x])


def _listed(steps: Sequence[int]) -> str:
    """ "8 and 16" """
    *others, last = map(str, steps)
    return f"{', '.join(others)} and {last}" if others else last


def _plain(example: Example) -> dict[str, Any]:
    return {
        "name": example.name,
        "member": example.member,
        "family": example.family,
        "task": example.task,
        "x": np.round(example.x, 6).tolist(),
        "by_seed": np.round(example.by_seed, 6).tolist(),
        "gain": round(example.gain, 6),
        "stack": example.stack,
        "floor": round(example.floor, 6),
    }


def _example(told: dict[str, Any]) -> Example:
    arrays = {name: np.array(told[name], dtype=float) for name in ("x", "by_seed")}
    return Example(**{**told, **arrays})
