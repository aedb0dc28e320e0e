"""Measured contributions: every arm trained over seeds and rates, and what came out.

An arm is a layer, a set of layers, or all parameters ("full"). Finished runs are kept in a `Memory` at once, so that a
stopped measurement goes on with the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from calibration.contribution import Estimate, Scores
from calibration.protocol import Protocol
from calibration.runs import FULL, Run, arm_name
from probes.memory import Memory

Perform = Callable[[Sequence[Run]], Any]  # yields (run, record) as runs are finished


@dataclass(frozen=True)
class ArmResult:
    """One arm under one decoding: its score over seeds, its gain over the base, and its contribution if there is one.

    ``score``, ``gain`` and ``contribution`` are None where every run of the arm broke down; ``by_seed`` are mean
    scores, ``failures`` the reasons of runs that broke down.
    """

    arm: str
    layers: tuple[int, ...] | None
    learning_rate: float | None
    seeds: list[int]
    by_seed: list[float]
    score: Estimate | None
    gain: Estimate | None
    contribution: Estimate | None
    failures: list[str]


@dataclass(frozen=True)
class Sweep:
    """The records (as `calibration.runs` makes them) of all runs and of the base policy, read under any decoding."""

    protocol: Protocol
    arms: list[tuple[int, ...] | None]
    base: dict[str, Any]
    records: dict[str, dict[str, Any]]  # by `Run.key`

    def chosen_rate(self, layers: tuple[int, ...] | None) -> float | None:
        """The rate with the best mean validation score under the protocol's decoding; ties go to the lower.

        Judged on the seeds that try every rate. One that broke down on any of them loses to one that did not; None if
        all did.
        """
        best, best_value = None, (-1, -np.inf)
        for rate in self.protocol.rates_of(arm_name(layers)):
            found = [self.records.get(Run(layers, seed, rate).key) for seed in self.protocol.searching_seeds]
            found = [record for record in found if record]
            values = [r["validation"][self.protocol.decoding] for r in found if r["failed"] is None]
            if not values:
                continue
            value = (-sum(r["failed"] is not None for r in found), float(np.mean(values)))
            if best is None or value > best_value:
                best, best_value = rate, value
        return best

    def runs_of(self, layers: tuple[int, ...] | None) -> list[dict[str, Any]]:
        """The arm's records at its chosen rate, one a seed, those that broke down included."""
        rate = self.chosen_rate(layers)
        rates = self.protocol.rates_of(arm_name(layers)) if rate is None else [rate]
        keys = [Run(layers, seed, r).key for r in rates for seed in self.protocol.seed_numbers]
        return [self.records[key] for key in keys if key in self.records]

    def scores(self, decoding: str) -> Scores:
        """Joint bootstrap of all arms that have a score."""
        found = {}
        for layers in self.arms:
            good = {r["seed"]: r["held_out"][decoding] for r in self.runs_of(layers) if r["failed"] is None}
            if good:
                found[arm_name(layers)] = {seed: np.array(values, dtype=float) for seed, values in good.items()}
        return Scores(np.array(self.base["held_out"][decoding], dtype=float), found)

    def results(self, decoding: str) -> dict[str, ArmResult]:
        """Every arm by name, in the order of `arms`."""
        scores = self.scores(decoding)
        found = {}
        for layers in self.arms:
            arm, runs = arm_name(layers), self.runs_of(layers)
            good = [r for r in runs if r["failed"] is None]
            contribution = scores.contribution(arm, FULL) if good and FULL in scores.arms else None
            found[arm] = ArmResult(
                arm,
                layers,
                self.chosen_rate(layers),
                [r["seed"] for r in good],
                [float(values.mean()) for values in scores.arms.get(arm, [])],
                scores.score(arm) if good else None,
                scores.gain(arm) if good else None,
                contribution,
                [r["failed"] for r in runs if r["failed"] is not None],
            )
        return found

    def seed_agreement(self, decoding: str) -> float | None:
        """Mean Spearman correlation of the layers' scores between two seeds: the ceiling for any predictor.

        None with fewer than two seeds or three single layers, or where a seed scores all layers alike.
        """
        by_layer = {}
        for layers in self.arms:
            if layers is not None:
                good = {r["seed"]: r["held_out"][decoding] for r in self.runs_of(layers) if r["failed"] is None}
                by_layer[layers] = {seed: np.nanmean(np.array(v, dtype=float)) for seed, v in good.items()}
        complete = [v for v in by_layer.values() if len(v) == self.protocol.seeds]
        if len(complete) < 3 or self.protocol.seeds < 2:
            return None
        profiles = [[scores[seed] for scores in complete] for seed in self.protocol.seed_numbers]
        if any(np.ptp(profile) == 0 for profile in profiles):
            return None
        return float(np.mean([spearmanr(a, b).statistic for a, b in combinations(profiles, 2)]))


def measure_contributions(
    protocol: Protocol,
    arms: Sequence[tuple[int, ...] | None],
    base: dict[str, Any],
    perform: Perform,
    *,
    memory: Memory | None = None,
    on_recalled: Callable[[dict[str, Any]], None] = lambda record: None,
    key: str = "",
) -> Sweep:
    """Perform every run of the protocol that `memory` does not have, and keep each as soon as it is done.

    `base` is the base policy's own record (`calibration.runs.score_both`). First the runs that choose each arm's rate,
    then the other seeds at that rate. `on_recalled` hears of each run that `memory` had; `key` sets apart runs whose
    reward differs.
    """
    memory = memory or Memory()
    arms = list(dict.fromkeys(arms))
    seeds = protocol.seed_numbers
    first = [
        Run(layers, seed, rate)
        for seed in protocol.searching_seeds
        for rate in sorted({*protocol.learning_rates, *protocol.known_rates.values()})
        for layers in arms
        if rate in protocol.rates_of(arm_name(layers))
    ]
    sweep = Sweep(protocol, arms, base, {})
    _perform_missing(sweep, first, perform, memory, on_recalled, key)
    chosen = {layers: sweep.chosen_rate(layers) for layers in arms}
    rest = [Run(layers, seed, chosen[layers]) for seed in seeds for layers in arms if chosen[layers] is not None]
    _perform_missing(sweep, [run for run in rest if run.key not in sweep.records], perform, memory, on_recalled, key)
    return sweep


def count_runs(protocol: Protocol, n_arms: int) -> int:
    """How many runs `measure_contributions` performs on so many arms, those of ``known_rates`` among them."""
    searching = len(protocol.searching_seeds)
    tried = n_arms * len(protocol.learning_rates) - len(protocol.known_rates) * (len(protocol.learning_rates) - 1)
    return searching * tried + (protocol.seeds - searching) * n_arms


def _perform_missing(
    sweep: Sweep, runs: Sequence[Run], perform: Perform, memory: Memory, on_recalled: Callable, key: str
) -> None:
    missing = []
    for run in runs:
        record = memory.recall("run", key + run.key)
        if record is None:
            missing.append(run)
        else:
            sweep.records[run.key] = record
            on_recalled(record)
    if missing:
        for run, record in perform(missing):
            memory.keep("run", key + run.key, record)
            sweep.records[run.key] = record
