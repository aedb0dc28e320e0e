"""Pairs of the corpus as examples for a predictor: features of every layer, and what it was measured to contribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from calibration.corpus.records import Pair
from calibration.corpus.replay import replay_race
from calibration.depth_prior import published_sweeps
from calibration.features import as_matrix, features
from calibration.race import CALIBRATED, RaceRules
from calibration.runs import FULL, arm_name
from probes.table import LayerTable

# Of the full-parameter gain, the least that the lower end of its 90 % interval must reach: below, contributions are
# ratios to something that is hardly known.
SURE_SHARE = 0.5
PUBLISHED = "published (Qwen)"  # one family: all seven models are of one lineage


@dataclass(frozen=True)
class Example:
    """One sweep under one decoding.

    ``x`` (L, F) are features, ``by_seed`` (S, L) contributions C against the same full-parameter gain, ``gain`` that
    gain in score, ``floor`` the regret of the best layer itself, measured again, ``idle`` the layers whose warm-ups
    brought nothing (`Race.idle`). Of a published sweep not every layer of the ``stack`` need be there.
    """

    name: str
    member: str
    family: str
    task: str
    x: np.ndarray
    by_seed: np.ndarray
    gain: float
    floor: float
    idle: frozenset[int] = frozenset()
    stack: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every layer of the stack was measured."""
        return self.n_layers == self.stack

    @property
    def n_layers(self) -> int:
        return len(self.x)

    @property
    def contribution(self) -> np.ndarray:
        """C of every layer, (L,), mean over seeds."""
        return self.by_seed.mean(0)

    @property
    def level(self) -> float:
        """Mean C of the layers: how much single layers bring at all, which features within a policy cannot tell."""
        return float(self.contribution.mean())

    @property
    def advantage(self) -> np.ndarray:
        """C of every layer less that of the mean layer, (L,): what a predictor is fitted on."""
        return self.contribution - self.level


def make_examples(pairs: Sequence[Pair], effort: str, decoding: str, rules: RaceRules | None = None) -> list[Example]:
    """Examples of the pairs whose full-parameter gain is well known under `decoding`; races are replayed by `rules`."""
    found = [make_example(pair, effort, decoding, rules or CALIBRATED) for pair in pairs if pair.is_whole]
    return [example for example in found if example is not None]


def make_example(pair: Pair, effort: str, decoding: str, rules: RaceRules) -> Example | None:
    """The example of one pair; None where its full-parameter gain, or some layer's score, is not known."""
    found = _measured(pair, decoding)
    if found is None:
        return None
    by_seed, gain, floor = found
    race = replay_race(pair, decoding, rules) if effort == "warmup" else None
    return Example(
        pair.name,
        pair.member,
        pair.family,
        pair.task,
        as_matrix(features(pair.table, race, effort)),
        by_seed,
        gain,
        floor,
        frozenset(race.idle()) if race else frozenset(),
        pair.n_layers,
    )


@lru_cache(maxsize=1024)
def _measured(pair: Pair, decoding: str) -> tuple[np.ndarray, float, float] | None:
    """Contributions by seed (S, L), the full-parameter gain, and the regret of the best layer itself."""
    scores = pair.sweep(decoding).scores(decoding)
    arms = [arm_name((k,)) for k in range(pair.n_layers)]
    if FULL not in scores.arms or any(len(scores.arms.get(arm, ())) < pair.protocol.seeds for arm in arms):
        return None
    gain = scores.gain(FULL)
    if gain.value <= 0 or gain.low < SURE_SHARE * gain.value:
        return None
    by_seed = np.array([scores.arms[arm].mean(1) for arm in arms]).T
    return (by_seed - scores.base.mean()) / gain.value, gain.value, scores.regret_of_best(arms) / gain.value


def published_examples(effort: str, decoding: str) -> list[Example]:
    """The sweeps of arXiv 2607.01232: position is all that is known of their layers, so other features are 0.

    They are scored greedily, and have one seed. Features and contributions are taken against the layers that were
    measured, of which there are few in most.
    """
    if decoding != "greedy":
        return []
    found = []
    for sweep in published_sweeps():
        table = LayerTable(sweep["n_layers"])
        x = as_matrix(features(table, None, effort))[[entry["layer"] for entry in sweep["layers"]]]
        contributions = np.array([entry["contribution"] for entry in sweep["layers"]], dtype=float)
        found.append(
            Example(
                f"{PUBLISHED}: {sweep['model']}",
                sweep["model"],
                PUBLISHED,
                sweep["data"],
                x - x.mean(0),
                contributions[None],
                (sweep["full"] - sweep["base"]) / 100,
                0.0,
                stack=sweep["n_layers"],
            )
        )
    return found
