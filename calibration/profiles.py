"""Measured profiles: the contribution of the layers of one policy on one task, wherever it was measured."""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from calibration.agreement import mean_reliability, spearman
from calibration.corpus.records import SMALL_POLICIES, Pair, load_pair, pair_files
from calibration.depth_prior import published_sweeps
from calibration.examples import SURE_SHARE
from calibration.runs import FULL
from probes.depth import depth_of
from probes.errors import UsageError, unknown_name

PUBLISHED = "arXiv 2607.01232"
# Between measured layers further apart than this share of the stack, nothing is said of those in between.
_LARGEST_GAP = 1 / 8
# The lineage of the published models by the beginning of their names; the distilled one is Qwen2.5-Math-7B trained on.
_LINEAGES = {
    "Qwen3": "published-qwen3",
    "Qwen2.5": "published-qwen2.5",
    "DeepSeek-R1-Distill-Qwen": "published-qwen2.5",
}


@dataclass(frozen=True)
class Profile:
    """Contributions C by layer of one policy on one task under one decoding.

    Not every layer need be there. ``ends`` are those of the 90 % intervals, of the layers that have one. ``member`` is
    what counts as one policy: profiles that share it are no independent evidence. ``seed_agreement`` is the mean
    Spearman correlation between two of its ``seeds`` training seeds. ``protocol`` holds what may differ between
    profiles. ``predicted`` ones were not measured and are never compared.
    """

    model: str
    member: str
    family: str
    task: str
    n_layers: int
    decoding: str
    values: dict[int, float]
    ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    seeds: int | None = None
    seed_agreement: float | None = None
    source: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)
    predicted: bool = False

    @property
    def name(self) -> str:
        return f"{self.model} on {self.task}"

    @property
    def layers(self) -> list[int]:
        """The layers with a contribution, in stack order."""
        return sorted(self.values)

    @property
    def depths(self) -> np.ndarray:
        """Relative depths of `layers`, (n,)."""
        return depth_of(np.array(self.layers), self.n_layers)

    @property
    def contributions(self) -> np.ndarray:
        """C of `layers`, (n,)."""
        return np.array([self.values[k] for k in self.layers])

    @property
    def is_whole(self) -> bool:
        return len(self.values) == self.n_layers

    @property
    def best(self) -> int:
        """The layer that brings most; ties go to the later."""
        return max(self.layers, key=lambda k: (self.values[k], k))

    @property
    def reliability(self) -> float | None:
        """Reliability of the mean over seeds by Spearman and Brown, 0 to 1; None where seeds were not compared."""
        if self.seed_agreement is None or self.seeds is None:
            return None
        return mean_reliability(self.seed_agreement, self.seeds)

    def at(self, depth: float) -> float | None:
        """C at a relative depth, between the measured layers on both sides; None where these are far apart."""
        place = depth * (self.n_layers - 1)
        below = [k for k in self.layers if k <= place + 1e-9]
        above = [k for k in self.layers if k >= place - 1e-9]
        if not below or not above or above[0] - below[-1] > max(1, _LARGEST_GAP * (self.n_layers - 1)):
            return None
        low, high = below[-1], above[0]
        share = 0.0 if low == high else (place - low) / (high - low)
        return (1 - share) * self.values[low] + share * self.values[high]

    def nearest(self, depth: float) -> int:
        """The measured layer nearest to a relative depth; ties go to the later."""
        return min(self.layers, key=lambda k: (round(abs(k - depth * (self.n_layers - 1)), 9), -k))


def gain_is_sure(gain: float, low: float) -> bool:
    """Whether the gain of full-parameter training is known well enough to take shares of it."""
    return gain > 0 and low >= SURE_SHARE * gain


def corpus_families(folder: Path = SMALL_POLICIES) -> dict[str, list[Path]]:
    """Files of the corpus by model family. Reads the first line of each."""
    found: dict[str, list[Path]] = {}
    for file in pair_files(folder):
        try:
            with gzip.open(file, "rt", encoding="utf-8") as stream:
                family = json.loads(stream.readline())["policy"]["family"]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"'{file}' is not a pair of the corpus ({error}): remove it, or fetch it again."
            ) from error
        found.setdefault(family, []).append(file)
    return dict(sorted(found.items()))


def published_families() -> list[str]:
    """Names that the published sweeps go by."""
    return sorted(set(_LINEAGES.values()))


def known_families() -> list[str]:
    """Every family that there are sweeps of, the corpus' first."""
    return [*corpus_families(), *published_families()]


def load_families(names: Sequence[str], decoding: str) -> tuple[list[Profile], dict[str, str]]:
    """Profiles of these families, and why others of their sweeps have none, by name.

    "all" is every family of the corpus, "published" both published ones. Cost: about a second a sweep of the corpus.
    Raises `UsageError` for an unknown name.
    """
    corpus, published = corpus_families(), published_families()
    wanted: list[str] = []
    for name in names:
        if name not in (*corpus, *published, "all", "published"):
            remedy = "Pass one of these as --family, 'all' for every family of the corpus, or 'published' for both."
            raise unknown_name("family", name, [*corpus, *published], remedy)
        wanted += corpus if name == "all" else published if name == "published" else [name]
    profiles, left_out = [], {}
    for name in dict.fromkeys(wanted):
        if name in published:
            profiles += published_profiles(decoding, name)
        for pair in map(load_pair, corpus.get(name, [])):
            found = pair_profile(pair, decoding)
            if isinstance(found, str):
                left_out[pair.name] = found
            else:
                profiles.append(found)
    return profiles, left_out


def pair_profile(pair: Pair, decoding: str) -> Profile | str:
    """The profile of a pair of the corpus, or why it has none."""
    if not pair.is_whole:
        return "full-parameter training gains too little to have a share of, so no layer was trained"
    sweep = pair.sweep(decoding)
    results = sweep.results(decoding)
    gain = results[FULL].gain
    if gain is None or not gain_is_sure(gain.value, gain.low):
        return f"the gain of full-parameter training is not known well enough, scored {decoding}"
    found = {r.layers[0]: r.contribution for r in results.values() if r.layers and r.contribution is not None}
    return Profile(
        # A pair is named after policy and task; policies of one member differ in what they were trained on before.
        pair.name.removesuffix(f".{pair.task}"),
        pair.member,
        pair.family,
        pair.task,
        pair.n_layers,
        decoding,
        {k: c.value for k, c in found.items()},
        {k: (c.low, c.high) for k, c in found.items()},
        pair.protocol.seeds,
        sweep.seed_agreement(decoding),
        "the corpus",
        compared_protocol(pair.head["protocol"]),
    )


def published_profiles(decoding: str, family: str | None = None) -> list[Profile]:
    """The sweeps of arXiv 2607.01232; none for sampled decoding, since they are scored greedily (one benchmark of four
    is not). They have one training seed and no intervals, and most list a few layers only."""
    found = []
    for sweep in published_sweeps() if decoding == "greedy" else []:
        model = sweep["model"].rsplit("/", 1)[-1]
        lineage = next(line for start, line in _LINEAGES.items() if model.startswith(start))
        if family in (None, lineage):
            values = {entry["layer"]: float(entry["contribution"]) for entry in sweep["layers"]}
            facts = {"algorithm": sweep["algorithm"]}
            found.append(
                Profile(
                    model,
                    model,
                    lineage,
                    sweep["data"],
                    sweep["n_layers"],
                    decoding,
                    values,
                    seeds=1,
                    source=PUBLISHED,
                    protocol=facts,
                )
            )
    return found


@cache
def published_correlations() -> dict[str, Any]:
    """What the study itself says of rank agreement: Spearman correlations by name, and of which model."""
    text = resources.files("calibration").joinpath("corpus/published_sweeps.json").read_text(encoding="utf-8")
    return json.loads(text)["rank_correlations"]


def benchmark_agreement(models: Iterable[str]) -> list[dict[str, Any]]:
    """Spearman correlation over layers between the benchmarks that one published sweep was scored on.

    Each pair of benchmarks scores the same training runs, so this is agreement of scores, not of training tasks.
    """
    found = []
    for sweep in published_sweeps():
        model = sweep["model"].rsplit("/", 1)[-1]
        names = sweep.get("benchmarks", {}).get("names", [])
        if model not in set(models) or not names:
            continue
        columns = [key for key in sweep["layers"][0] if key not in ("layer", "contribution")]
        scores = {name: np.array([la[c] for la in sweep["layers"]]) for name, c in zip(names, columns, strict=True)}
        for a, b in combinations(names, 2):
            rho = spearman(scores[a], scores[b])
            found.append({"model": model, "a": a, "b": b, "n": len(sweep["layers"]), "spearman": rho})
    return found


_COMPARED = ("algorithm", "steps", "prompts_per_step", "group_size", "learning_rates", "kl", "engine", "temperature")


def compared_protocol(protocol: dict[str, Any]) -> dict[str, Any]:
    """What of a protocol changes which layers are good, and the number of its seeds."""
    found = {name: protocol[name] for name in _COMPARED if name in protocol}
    return found | ({"seeds": len(protocol["seeds"])} if "seeds" in protocol else {})


def protocol_differences(profiles: Sequence[Profile]) -> dict[str, list[Any]]:
    """The values of each protocol field that differs between profiles, in the order of first appearance."""
    found = {}
    for name in dict.fromkeys(name for p in profiles for name in p.protocol):
        told = {json.dumps(p.protocol.get(name)): p.protocol.get(name) for p in profiles}
        if len(told) > 1:
            found[name] = list(told.values())
    return found
