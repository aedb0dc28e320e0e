"""Sweeps that are known already: of this very policy, or published under its name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from calibration.corpus.records import SMALL_POLICIES, Pair, load_corpus
from calibration.depth_prior import published_sweeps
from calibration.runs import arm_name


@dataclass(frozen=True)
class KnownSweep:
    """Measured contributions by layer, where they are from, and on which task. Not every layer need be among them."""

    source: str
    task: str
    contributions: dict[int, float]

    @property
    def order(self) -> list[int]:
        """Layers, best first."""
        return sorted(self.contributions, key=lambda k: (-self.contributions[k], -k))


def known_sweeps(
    name: str,
    layer_parameters: Sequence[int],
    fingerprint: Callable[[], str] | None,
    decoding: str,
    folders: Iterable[Path] = (),
) -> list[KnownSweep]:
    """What has been measured of a policy: in the corpus (and `folders` of pairs) by its weights, published by its name.

    `name` is a hub name, or a folder of which the last part counts. `fingerprint` is
    `probes.policy.Policy.weights_fingerprint` of the policy, None where it is not loaded; it is asked only where some
    sweep is of layers of these sizes. Published sweeps are scored greedily, but for one benchmark of four.
    """
    alike = [
        p for p in _pairs(SMALL_POLICIES, *folders) if p.head["policy"]["layer_parameters"] == list(layer_parameters)
    ]
    own = fingerprint() if alike and fingerprint is not None else None
    found = [_of_pair(pair, decoding) for pair in alike if pair.head["policy"]["fingerprint"] == own]
    for sweep in published_sweeps() if decoding == "greedy" else []:
        if _plain(sweep["model"]) == _plain(name) and sweep["n_layers"] == len(layer_parameters):
            contributions = {entry["layer"]: entry["contribution"] for entry in sweep["layers"]}
            found.append(KnownSweep("arXiv 2607.01232", sweep["data"], contributions))
    return [sweep for sweep in found if sweep.contributions]


@cache
def _pairs(*folders: Path) -> Sequence[Pair]:
    return [pair for pair in load_corpus(folders) if pair.is_whole]


def _of_pair(pair: Pair, decoding: str) -> KnownSweep:
    results = pair.sweep(decoding).results(decoding)
    found = {k: results[arm_name((k,))].contribution for k in range(pair.n_layers)}
    contributions = {k: float(c.value) for k, c in found.items() if c is not None and np.isfinite(c.value)}
    return KnownSweep("a sweep of this policy", pair.task, contributions)


def _plain(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
