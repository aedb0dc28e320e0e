"""A race of warm-ups: all layers train together, and at each rung those that are surely behind stop.

An arm is a layer with a learning rate. All arms answer the same validation prompts with the same random numbers, so the
noise that they share cancels in differences between them. At a rung, in this order:

1. each layer keeps its better learning rate (from the rung on where `RaceRules.choose_rate` says so);
2. where `RaceRules.z` is a number, an arm stops that is *surely behind* the leader: its score is lower by more than so
   many standard errors of their paired difference;
3. of more than the share `RaceRules.keep` of the layers, the lowest stop: successive halving (Jamieson & Talwalkar,
   arXiv 1502.07943), which the evidence does not back but the budget asks for. The record says which was which.

The race ends at its last rung, when one layer is left, or when the budget does not pay for another rung with two.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import ceil, floor
from typing import Any

import numpy as np

from calibration.contribution import Estimate, mean_interval
from probes.errors import RunError, UsageError
from probes.tasks.task import Row
from probes.training.expected import Known
from probes.training.joint import Arm, JointTrainer

BEHIND, HALVED, RATE = "behind", "halved", "rate"
EXPECTED, ANSWERS = "expected reward", "answers"  # what arms are scored by
ALL_BROKE = "every arm broke down"
_FIRST_SHARE = 0.5  # of the first step: what a later one of an arm takes on the base policy's completions


@dataclass(frozen=True)
class RaceRules:
    """``rungs`` are the steps after which arms are scored, ``prompts`` how many validation prompts they answer."""

    rungs: tuple[int, ...] = (2, 4, 8)
    prompts: int = 128
    z: float | None = 2.0
    keep: float = 0.5
    rate_rung: int = 0  # index of the rung from which on a layer has one rate

    def __post_init__(self) -> None:
        rules = {
            "rungs": (
                bool(self.rungs) and self.rungs[0] >= 1 and all(a < b for a, b in pairwise(self.rungs)),
                "rising numbers of steps, the first at least 1",
            ),
            "prompts": (self.prompts >= 2, "at least 2"),
            "z": (self.z is None or self.z >= 0, "at least 0, or None"),
            "keep": (0 < self.keep <= 1, "above 0 and at most 1"),
            "rate rung": (self.rate_rung >= 0, "at least 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                value = getattr(self, name.replace(" ", "_"))
                raise UsageError(f"The race's {name} {value} are not allowed: they must be {rule}.")


# What the shipped predictors know: nobody is stopped before the end. After 4 steps the best rate of a layer is the
# highest that has not harmed it yet, and halving then loses good layers (`calibration.evaluation` shows both).
CALIBRATED = RaceRules(rungs=(8,), prompts=256, z=None, keep=1.0)
HALVED_RACE = RaceRules(rungs=(4, 8), prompts=256, z=None)


def rungs_up_to(steps: int) -> tuple[int, ...]:
    """Doubling rungs that end at `steps`: 8 gives (2, 4, 8), 10 gives (2, 5, 10)."""
    found = [steps]
    while found[0] >= 4:
        found.insert(0, found[0] // 2)
    return tuple(found)


@dataclass(frozen=True)
class Standing:
    """Where an arm stood at a rung: mean score, gain over the base policy, difference to the leader (at most 0), each
    with its 90 % interval over prompts; ``out`` says why it stopped there, None where it went on."""

    layer: int
    rate: float
    score: float
    gain: Estimate
    to_leader: Estimate
    out: str | None


@dataclass(frozen=True)
class Rung:
    """One scoring of the arms that were still in: best first. ``seconds`` since the race began."""

    step: int
    base: float
    n_prompts: int
    standings: list[Standing]
    seconds: float


@dataclass(frozen=True)
class Race:
    """What happened, rung by rung.

    Of ``entered`` arms, ``broke`` are those whose numbers were no longer sound, with the reason, ``not_paid`` those
    (layer, rate) that the budget did not take to the first rung. ``arm_steps`` counts the steps of all arms.
    """

    rungs: list[Rung] = field(default_factory=list)
    broke: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    entered: int = 0
    not_paid: list[list[float]] = field(default_factory=list)
    arm_steps: int = 0
    why_apart: str = ""  # why layers were trained one after another, if they were
    scored_by: str = ANSWERS  # or `EXPECTED`

    @property
    def winner(self) -> Standing | None:
        """The best arm of the last rung; None where every arm broke down."""
        return self.rungs[-1].standings[0] if self.rungs and self.ended != ALL_BROKE else None

    @property
    def finalists(self) -> list[Standing]:
        """The better arm of every layer that stood at the last rung and was not surely behind there, best first."""
        if self.winner is None:
            return []
        best: dict[int, Standing] = {}
        for standing in self.rungs[-1].standings:
            best.setdefault(standing.layer, standing)
        return [s for s in best.values() if s.out is None]

    def idle(self) -> set[int]:
        """Layers that are shown to be behind the leader and not shown to gain anything, at the last rung of each."""
        found = set()
        for layer in self.order():
            _, standing = self.last_of(layer)
            if standing.to_leader.high < 0 and not standing.gain.above_zero:
                found.add(layer)
        return found

    def order(self) -> list[int]:
        """Layers, best first: by the last rung that each took part in, then by its score there; ties to the later."""
        best: dict[int, tuple] = {}
        for i, rung in enumerate(self.rungs):
            for standing in rung.standings:
                key = (i, round(standing.score, 9), standing.layer)
                best[standing.layer] = max(best.get(standing.layer, key), key)
        return sorted(best, key=lambda layer: best[layer], reverse=True)

    def last_of(self, layer: int) -> tuple[Rung, Standing] | None:
        """The last rung that a layer took part in, and its better arm there."""
        for rung in reversed(self.rungs):
            own = [standing for standing in rung.standings if standing.layer == layer]
            if own:
                return rung, own[0]
        return None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Race":
        """The race that `as_dict` gave."""
        estimates = ("gain", "to_leader")
        rungs = [
            Rung(
                **{
                    **rung,
                    "standings": [
                        Standing(**{**s, **{name: Estimate(**s[name]) for name in estimates}})
                        for s in rung["standings"]
                    ],
                }
            )
            for rung in found["rungs"]
        ]
        return cls(**{**found, "rungs": rungs})


def judge_rung(
    step: int,
    base: np.ndarray,
    scores: Mapping[Arm, np.ndarray],
    rules: RaceRules,
    *,
    index: int,
    most: int | None = None,
    seconds: float = 0.0,
) -> Rung:
    """Who stops at a rung. `base` (n,) and `scores` by arm (n,) are rewards of the same prompts, NaN for unscored.

    `most` is how many arms the budget pays for beyond this rung; None is no limit. The leader never stops; ties go to
    the later layer, which is cheaper to train, and to the lower rate. Raises `RunError` where fewer than two prompts
    are scored in all.
    """
    arms = list(scores)
    values = np.array([scores[arm] for arm in arms], dtype=float)
    scored = ~np.isnan(base) & ~np.isnan(values).any(0)
    if scored.sum() < 2:
        raise RunError(
            f"Only {int(scored.sum())} of {len(base)} validation prompts are scored in all {len(arms)} warm-ups, but 2 "
            "are needed: the reward gives None for the others, or --validation or the data are too small."
        )
    values, of_base = values[:, scored], base[scored]
    means = values.mean(1)
    order = sorted(range(len(arms)), key=lambda i: (-round(means[i], 9), -arms[i][0], arms[i][1]))
    leader = order[0]
    out: dict[int, str] = {}
    if index >= rules.rate_rung:
        seen: set[int] = set()
        for i in order:
            if arms[i][0] in seen:
                out[i] = RATE
            seen.add(arms[i][0])
    for i in order[1:]:
        difference = values[leader] - values[i]
        error = _standard_error(difference)
        if rules.z is not None and i not in out and difference.mean() > max(0.0, rules.z * error):
            out[i] = BEHIND
    layers = list(dict.fromkeys(arms[i][0] for i in order))
    room = max(1, ceil(rules.keep * len(layers)))
    going_on = [i for i in order if i not in out]
    kept_layers = list(dict.fromkeys(arms[i][0] for i in going_on))[:room]
    for place, i in enumerate(going_on):
        if arms[i][0] not in kept_layers or (most is not None and place >= max(1, most)):
            out[i] = HALVED
    standings = [
        Standing(
            *arms[i],
            float(means[i]),
            mean_interval(values[i] - of_base),
            mean_interval(values[i] - values[leader]),
            out.get(i),
        )
        for i in order
    ]
    return Rung(step, float(of_base.mean()), int(scored.sum()), standings, seconds)


def run_race(
    trainer: JointTrainer,
    rows: Sequence[Row],
    rules: RaceRules,
    *,
    decoding: str,
    known: Known | None = None,
    samples: int = 1,
    seed: int = 0,
    budget: float | None = None,
    preference: Sequence[Arm] = (),
    start: Race | None = None,
    on_rung: Callable[[Race], None] = lambda race: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Train the arms of `trainer` (an open context) and drop them rung by rung; returns what happened.

    `rows` are the validation prompts, of which the first ``rules.prompts`` are answered. `budget` in seconds bounds
    training and scoring from here on: fewer arms go on where it would not pay for all; of those that have not been
    scored yet, those go on that come first in `preference`. `start` is the race so far, the trainer being in its state.
    `on_rung` hears of each rung when its arms have been dropped. With `known` completions an arm's scores are expected
    rewards over them, without them rewards of its answers. Raises `RunError` where too few prompts are scored.
    """
    rows, began = list(rows)[: rules.prompts], clock()
    race = start or Race(entered=len(trainer.live), scored_by=ANSWERS if known is None else EXPECTED)
    earlier = race.rungs[-1].seconds if race.rungs else 0.0
    budget = None if budget is None else budget - earlier
    pace = _Pace(_FIRST_SHARE if trainer.config.base_steps else 1.0)
    for index, step in enumerate(rules.rungs):
        if step <= trainer.steps_done:
            continue
        while trainer.steps_done < step and trainer.live:
            at = clock()
            records = trainer.step()
            pace.stepped(clock() - at, len(records), first=trainer.steps_done == 1)
            race = replace(race, arm_steps=race.arm_steps + len(records))
            if trainer.steps_done == 1 and budget is not None:
                paid = max(2, pace.arms_for((budget - (clock() - began)) / 2, rules.rungs[0] - 1))
                late = [arm for arm in preference if arm in trainer.live][paid:]
                trainer.drop(late)
                race = replace(race, not_paid=[list(arm) for arm in late])
        at, n_scored = clock(), len(trainer.live)
        base, scores = score_arms(trainer, rows, decoding, known, samples, seed)
        pace.scored(clock() - at, n_scored)
        broke = {arm_key(arm): str(failure) for arm, failure in trainer.failures.items()}
        unscored = [arm for arm, values in scores.items() if np.isnan(values).all()]
        trainer.drop(unscored)
        broke |= {arm_key(arm): f"step {step}: the reward gave None for all its answers" for arm in unscored}
        scores = {arm: values for arm, values in scores.items() if arm not in unscored}
        race = replace(race, broke={**race.broke, **broke})
        if not scores:
            return replace(race, ended=ALL_BROKE)
        left = None if budget is None else budget - (clock() - began)
        ahead = rules.rungs[index + 1] - step if index + 1 < len(rules.rungs) else 0
        most = None if left is None or not ahead else pace.arms_for(left, ahead)
        seconds = round(earlier + clock() - began, 3)
        here = rules if ahead else replace(rules, keep=1.0)  # nothing to save after the last rung
        rung = judge_rung(step, base, scores, here, index=index, most=most, seconds=seconds)
        race = replace(race, rungs=[*race.rungs, rung])
        trainer.drop([(s.layer, s.rate) for s in rung.standings if s.out])
        if not ahead:
            race = replace(race, ended="the last rung")
        elif most is not None and most < 2:
            race = replace(race, ended="the budget")
        elif len(trainer.live) == 1:
            race = replace(race, ended="one layer left")
        on_rung(race)
        if race.ended:
            break
    return race


def score_arms(
    trainer: JointTrainer, rows: Sequence[Row], decoding: str, known: Known | None, samples: int = 1, seed: int = 0
) -> tuple[np.ndarray, dict[Arm, np.ndarray]]:
    """Score of each prompt, (n,), of the base policy and by live arm: its expected reward over what is `known`, or,
    where that is None, the reward of answers to `rows`."""
    if known is None:
        return trainer.score(rows, decoding=decoding, samples=samples, seed=seed)
    base, found = trainer.expected(known.groups)
    return known.average + base, {arm: known.average + values for arm, values in found.items()}


def arm_key(arm: Arm) -> str:
    """ "layer 3, rate 0.0001" """
    return f"layer {arm[0]}, rate {arm[1]:g}"


class _Pace:
    """Seconds that a step and a scoring of one arm take, from what they took."""

    def __init__(self, first_share: float) -> None:
        self.first_share = first_share
        self.step = self.score = 0.0  # before the first scoring, its cost is taken to be in the half that is kept back

    def stepped(self, seconds: float, arms: int, first: bool) -> None:
        # The first step, that of a single policy, is shared by all arms.
        self.step = self.first_share * seconds if first else seconds / max(1, arms)

    def scored(self, seconds: float, arms: int) -> None:
        self.score = seconds / (arms + 1)

    def arms_for(self, seconds: float, steps: int) -> int:
        """How many arms `seconds` pay for, trained for `steps` more and scored."""
        return floor(seconds / max(1e-9, steps * self.step + self.score))


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")
