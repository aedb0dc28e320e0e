"""The race's decisions on planted scores, and whole races with a trainer that only looks scores up."""

from types import SimpleNamespace

import numpy as np
import pytest

from calibration.race import BEHIND, HALVED, RATE, Race, RaceRules, judge_rung, run_race, rungs_up_to
from probes.errors import RunError, UsageError

N = 100


def answers(share: float, n: int = N) -> np.ndarray:
    """Right on the first `share` of prompts: paired, so that better policies are right wherever worse ones are."""
    return (np.arange(n) < share * n).astype(float)


def outs(rung) -> dict:
    return {(s.layer, s.rate): s.out for s in rung.standings}


ALL = RaceRules(keep=1.0)  # nobody is halved


def judge(scores, rules=ALL, index=0, **options):
    return judge_rung(2, answers(0.1), {arm: answers(v) for arm, v in scores.items()}, rules, index=index, **options)


def test_who_is_surely_behind_stops_and_who_may_be_ahead_goes_on():
    rung = judge({(0, 1e-3): 0.2, (1, 1e-3): 0.6, (2, 1e-3): 0.58})
    assert outs(rung) == {(0, 1e-3): BEHIND, (1, 1e-3): None, (2, 1e-3): None}
    leader, second, last = rung.standings
    assert (leader.layer, second.layer, last.layer) == (1, 2, 0)
    assert leader.score == pytest.approx(0.6)
    assert leader.gain.value == pytest.approx(0.5)
    assert last.to_leader.value == pytest.approx(-0.4)
    assert last.to_leader.high < 0 < second.to_leader.high


def test_the_noise_that_arms_share_cancels():
    """Two prompts in a hundred differ: far less than the noise of either score, but two standard errors apart."""
    scores = {(0, 1e-3): answers(0.5), (1, 1e-3): answers(0.56)}
    rung = judge_rung(2, answers(0.1), scores, RaceRules(keep=1.0), index=0)
    assert outs(rung)[0, 1e-3] == BEHIND
    shuffled = {**scores, (0, 1e-3): np.roll(scores[0, 1e-3], 50)}
    rung = judge_rung(2, answers(0.1), shuffled, RaceRules(keep=1.0), index=0)
    assert outs(rung)[0, 1e-3] is None


def test_equal_arms_all_stay_and_ties_go_to_the_later_layer_and_the_lower_rate():
    rung = judge({(0, 1e-3): 0.4, (2, 1e-3): 0.4, (1, 1e-3): 0.4, (2, 1e-4): 0.4}, RaceRules(keep=1.0, rate_rung=1))
    assert [(s.layer, s.rate) for s in rung.standings] == [(2, 1e-4), (2, 1e-3), (1, 1e-3), (0, 1e-3)]
    assert set(outs(rung).values()) == {None}


def test_each_layer_keeps_its_better_rate_from_the_rate_rung_on():
    scores = {(0, 1e-3): 0.5, (0, 1e-4): 0.45, (1, 1e-3): 0.44, (1, 1e-4): 0.49}
    assert outs(judge(scores)) == {(0, 1e-3): None, (0, 1e-4): RATE, (1, 1e-3): RATE, (1, 1e-4): None}
    assert RATE not in outs(judge(scores, RaceRules(keep=1.0, rate_rung=1))).values()


def test_half_of_the_layers_stop_even_where_nothing_tells_them_apart():
    found = outs(judge({(k, 1e-3): 0.5 - k / 1000 for k in range(5)}, RaceRules(keep=0.5)))
    assert [k for (k, _), out in found.items() if out is None] == [4, 3, 2]  # equal on 100 prompts: the later ones
    assert [k for (k, _), out in found.items() if out == HALVED] == [1, 0]


def test_the_budget_stops_the_lowest():
    found = outs(judge({(k, 1e-3): 0.3 + 0.01 * k for k in range(5)}, most=2))
    assert [k for (k, _), out in found.items() if out is None] == [4, 3]


def test_too_few_scored_prompts_are_an_error_that_says_what_to_do():
    scores = {(0, 1e-3): answers(0.5), (1, 1e-3): np.full(N, np.nan)}
    with pytest.raises(RunError, match="Only 0 of 100 validation prompts"):
        judge_rung(2, answers(0.1), scores, RaceRules(), index=0)


def test_prompts_that_some_arm_left_unscored_count_for_none():
    scores = {(0, 1e-3): answers(0.5), (1, 1e-3): answers(0.5)}
    scores[0, 1e-3][:50] = np.nan
    rung = judge_rung(2, answers(0.1), scores, RaceRules(keep=1.0), index=0)
    assert rung.n_prompts == 50
    assert [s.score for s in rung.standings] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rungs": ()}, "rungs"),
        ({"rungs": (4, 2)}, "rising"),
        ({"prompts": 1}, "prompts"),
        ({"z": -1.0}, "z -1"),
        ({"keep": 0.0}, "keep 0"),
        ({"rate_rung": -1}, "rate rung -1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(changes, match):
    with pytest.raises(UsageError, match=match):
        RaceRules(**changes)


@pytest.mark.parametrize(
    ("steps", "rungs"), [(1, (1,)), (3, (3,)), (8, (2, 4, 8)), (10, (2, 5, 10)), (16, (2, 4, 8, 16))]
)
def test_rungs_double(steps, rungs):
    assert rungs_up_to(steps) == rungs


class Lookup:
    """A trainer whose arms score what is planted: better with every step, up to the truth."""

    def __init__(self, truth: dict, clock=None, seconds: float = 1.0, fails: dict | None = None) -> None:
        self.config = SimpleNamespace(base_steps=8)
        self.truth, self.live, self.failures, self.steps_done = truth, dict.fromkeys(truth), {}, 0
        self.clock, self.seconds, self.fails = clock, seconds, fails or {}

    def _spend(self, arms: float) -> None:
        if self.clock:
            self.clock.now += arms * self.seconds

    def step(self):
        self._spend(len(self.live) if self.steps_done else 2.5)
        self.steps_done += 1
        for arm in [arm for arm in self.live if self.fails.get(arm) == self.steps_done]:
            self.failures[arm] = "step 2: broke"
            self.live.pop(arm)
        return dict.fromkeys(self.live, SimpleNamespace(reward=0.5))

    def score(self, rows, decoding, samples, seed):
        self._spend(0.1 * len(self.live))
        share = min(1.0, self.steps_done / 8)
        return answers(0.2), {arm: answers(0.2 + share * (self.truth[arm] - 0.2)) for arm in self.live}

    def drop(self, arms):
        for arm in arms:
            self.live.pop(arm)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


TRUTH = {(k, rate): 0.3 + 0.4 * (k == 5) + 0.02 * k - 0.1 * (rate == 1e-4) for k in range(8) for rate in (1e-4, 1e-3)}
ROWS = [{"prompt": str(i)} for i in range(N)]


def test_the_best_layer_wins_for_a_fraction_of_the_steps():
    seen = []
    race = run_race(Lookup(TRUTH), ROWS, RaceRules(), decoding="greedy", on_rung=seen.append)
    assert (race.winner.layer, race.winner.rate) == (5, 1e-3)
    assert race.order()[0] == 5
    assert sorted(race.order()) == list(range(8))
    assert race.ended in ("one layer left", "the last rung")
    assert race.arm_steps < 0.5 * 8 * len(TRUTH)
    assert [len(r.rungs) for r in seen] == list(range(1, len(race.rungs) + 1))
    rung, standing = race.last_of(0)
    assert (rung.step, standing.layer) == (2, 0)
    assert Race.from_dict(race.as_dict()) == race


def test_layers_that_bring_nothing_beside_one_that_does_are_idle():
    truth = {(k, 1e-3): 0.2 + 0.3 * (k in (2, 3)) for k in range(6)}
    race = run_race(Lookup(truth), ROWS, RaceRules(keep=1.0, z=None), decoding="greedy")
    assert race.idle() == {0, 1, 4, 5}
    flat = run_race(Lookup(dict.fromkeys(truth, 0.2)), ROWS, RaceRules(), decoding="greedy")
    assert flat.idle() == set()


def test_without_any_difference_the_later_layer_wins_and_nobody_is_called_behind():
    race = run_race(Lookup(dict.fromkeys(TRUTH, 0.5)), ROWS, RaceRules(), decoding="greedy")
    assert race.winner.layer == 7
    assert BEHIND not in {s.out for rung in race.rungs for s in rung.standings}


@pytest.mark.parametrize("budget", [15.0, 30.0, 60.0, 1000.0])
def test_the_budget_is_kept(budget):
    clock = Clock()
    preference = sorted(TRUTH, key=lambda arm: (-arm[1], abs(arm[0] - 4)))
    race = run_race(
        Lookup(TRUTH, clock), ROWS, RaceRules(), decoding="greedy", budget=budget, preference=preference, clock=clock
    )
    assert clock.now <= budget
    assert race.winner.layer == 5
    assert bool(race.not_paid) == (budget < 60)


def test_a_race_that_was_stopped_goes_on_where_it_was():
    whole = run_race(Lookup(TRUTH), ROWS, RaceRules(keep=0.6, z=1e9), decoding="greedy")
    kept = []
    run_race(Lookup(TRUTH), ROWS, RaceRules(keep=0.6, z=1e9), decoding="greedy", on_rung=kept.append)
    first = Race.from_dict(kept[0].as_dict())
    again = Lookup(TRUTH)
    again.live = {(s.layer, s.rate): None for s in first.rungs[0].standings if s.out is None}
    again.steps_done = first.rungs[0].step
    resumed = run_race(again, ROWS, RaceRules(keep=0.6, z=1e9), decoding="greedy", start=first)
    strip = lambda race: [[(s.layer, s.score, s.out) for s in rung.standings] for rung in race.rungs]  # noqa: E731
    assert strip(resumed) == strip(whole)


def test_arms_that_broke_are_told_and_the_others_go_on():
    race = run_race(Lookup(TRUTH, fails={(5, 1e-3): 2}), ROWS, RaceRules(), decoding="greedy")
    assert race.broke == {"layer 5, rate 0.001": "step 2: broke"}
    assert (race.winner.layer, race.winner.rate) == (5, 1e-4)
    for step in (1, 3):  # before and after the first rung
        alike = Lookup(dict.fromkeys(TRUTH, 0.5), fails=dict.fromkeys(TRUTH, step))
        every = run_race(alike, ROWS, RaceRules(), decoding="greedy")
        assert every.winner is None
        assert every.ended == "every arm broke down"


def test_an_arm_whose_answers_cannot_be_scored_breaks_down_alone():
    class Mute(Lookup):
        def score(self, rows, decoding, samples, seed):
            base, scores = super().score(rows, decoding, samples, seed)
            return base, {arm: values * np.nan if arm == (5, 1e-3) else values for arm, values in scores.items()}

    race = run_race(Mute(TRUTH), ROWS, RaceRules(), decoding="greedy")
    assert "None for all its answers" in race.broke["layer 5, rate 0.001"]
    assert (race.winner.layer, race.winner.rate) == (5, 1e-4)


def test_a_race_that_goes_on_has_what_is_left_of_the_budget():
    kept, clock = [], Clock()
    run_race(Lookup(TRUTH, clock), ROWS, RaceRules(), decoding="greedy", on_rung=kept.append, clock=clock)
    again, clock = Lookup(TRUTH), Clock()
    again.live = {(s.layer, s.rate): None for s in kept[0].rungs[0].standings if s.out is None}
    again.clock, again.steps_done, used = clock, 2, kept[0].rungs[0].seconds
    race = run_race(
        again, ROWS, RaceRules(), decoding="greedy", start=kept[0], budget=used + 3.0, clock=clock, preference=()
    )
    assert race.ended == "the budget"
