"""Races run again on the recorded warm-ups of a pair, under any rules."""

from dataclasses import replace

import numpy as np

from calibration.corpus.records import Pair
from calibration.race import ALL_BROKE, Race, RaceRules, judge_rung
from probes.training.joint import Arm


def replay_race(pair: Pair, decoding: str, rules: RaceRules, rates: tuple[float, ...] | None = None) -> Race:
    """The race of `rules` on the warm-ups of `pair`, whose rungs must be among those recorded.

    ``arm_steps`` count the training that this race takes, not what was recorded.
    """
    rungs = {rung["step"]: rung for rung in pair.warmup["rungs"]}
    live: set[Arm] | None = None
    race, before = Race(broke=dict(pair.warmup["failures"]), scored_by=pair.warmup["scored_by"][decoding]), 0
    for index, step in enumerate(rules.rungs):
        found = (
            {arm_of(name): values for name, values in rungs[step]["scores"][decoding].items()} if step in rungs else {}
        )
        scores = {
            arm: np.array(values[: rules.prompts], dtype=float)
            for arm, values in sorted(found.items())
            if (live is None or arm in live) and (rates is None or arm[1] in rates)
        }
        scores = {arm: values for arm, values in scores.items() if not np.isnan(values).all()}
        if live is None:
            race = replace(race, entered=len(scores))
        if not scores:
            return replace(race, ended=ALL_BROKE)
        base = np.array(rungs[step]["base"][decoding][: rules.prompts], dtype=float)
        judged = judge_rung(step, base, scores, rules, index=index)
        live = {(s.layer, s.rate) for s in judged.standings if s.out is None}
        steps = race.arm_steps + len(scores) * (step - before)
        race = replace(race, rungs=[*race.rungs, judged], ended="the last rung", arm_steps=steps)
        before = step
        if len(live) == 1:
            break
    return race


def arm_of(name: str) -> Arm:
    """ "3,0.0001" -> (3, 0.0001)"""
    layer, rate = name.split(",")
    return int(layer), float(rate)
