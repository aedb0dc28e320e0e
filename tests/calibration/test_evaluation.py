import numpy as np
import pytest
from pairs import make_pair, planted_corpus

from calibration.baselines import other_task_scores, position_baselines, probe_baselines, race_share, reward_baseline
from calibration.corpus.replay import replay_race
from calibration.evaluation import evaluate, with_interval
from calibration.evaluation_page import page, table
from calibration.race import RaceRules


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("calibration.predictor.DRAWS", 25)
        return evaluate(planted_corpus(families=4, tasks=3, layers=8), decodings=["greedy"])


def test_a_planted_effect_is_found_in_unseen_families_and_beats_position(found):
    part = found["greedy"]
    assert part["sweeps"] == 12
    assert part["methods"]["advisor, probe"]["regret"]["mean"] < 0.5 * part["methods"]["random layer"]["regret"]["mean"]
    assert part["methods"]["Fisher"]["spearman"]["mean"] > 0.7
    own = part["predictors"]["probe"]["family"]
    assert own["depth_residual_p"] < 0.05
    assert own["candidates"].get("depth curve", 0) < 6
    assert part["paired"]["advisor, probe"]["middle layer"]["low"] > 0


def test_static_effort_knows_nothing_of_it(found):
    static = found["greedy"]["predictors"]["static"]["family"]
    assert abs(static["depth_residual"]["mean"]) < 0.5
    assert static["depth_residual_p"] > 0.01


def test_every_method_has_its_cost_and_interval(found):
    for name, method in found["greedy"]["methods"].items():
        assert method["cost"] >= 0
        assert method["regret"]["low"] <= method["regret"]["mean"] <= method["regret"]["high"], name
    costs = [found["greedy"]["methods"][f"advisor, {effort}"]["cost"] for effort in ("static", "probe", "warmup")]
    assert costs == sorted(costs)


def test_the_page_and_the_table_tell_every_method(found):
    html, text = page(found), table(found)
    for name in found["greedy"]["methods"]:
        assert name.replace("'", "&#x27;") in html
        assert name in text
    assert html.count("<svg") == 1
    assert "<script" not in html


def test_intervals_are_over_policies_not_sweeps():
    values, rng = np.repeat([0.0, 1.0, 2.0, 3.0], 25), np.random.default_rng(0)
    together = with_interval(values, np.repeat(list("abcd"), 25).tolist())
    apart = with_interval(values, [str(i) for i in rng.permutation(100)])
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_baselines_pick_what_they_say():
    pair = make_pair("a", [0.2, 0.4, 0.9, 0.6, 0.1], hint=[5, 1, 2, 3, 4])
    picks = {
        b.name: int(np.argmax(b.scores(pair, "greedy")))
        for b in [*position_baselines(), *probe_baselines(), reward_baseline()]
    }
    assert picks["middle layer"] == 2
    assert picks["first layer"] == 0
    assert picks["last layer"] == 4
    assert picks["Fisher"] == 0
    assert picks["training reward after 8 steps"] == 2


def test_another_tasks_ranking_is_of_the_same_policy():
    one = make_pair("one", [0.2, 0.4, 0.9], task="add")
    same = make_pair("same", [0.9, 0.4, 0.1], task="sort")
    foreign = make_pair("foreign", [0.1, 0.9, 0.1], task="sort", member="other")
    measured = [
        (one, np.array([0.2, 0.4, 0.9])),
        (same, np.array([0.9, 0.4, 0.1])),
        (foreign, np.array([0.1, 0.9, 0.1])),
    ]
    np.testing.assert_allclose(other_task_scores(one, measured), [0.9, 0.4, 0.1])
    assert other_task_scores(foreign, measured) is None


def test_a_replayed_race_finds_a_planted_winner_and_costs_less_than_all_of_it():
    pair = make_pair("a", [0.1, 0.1, 3.0, 0.1, 0.1, 0.1])
    rules = RaceRules(rungs=(4, 8), prompts=64)
    race = replay_race(pair, "greedy", rules)
    assert race.winner.layer == 2
    everything = replay_race(pair, "greedy", RaceRules(rungs=(4, 8), prompts=64, keep=1.0, z=None))
    assert everything.arm_steps == 6 * 8
    assert race_share(pair, race, rules, "greedy") < race_share(pair, everything, rules, "greedy")
    assert race_share(pair, everything, rules, "greedy") == pytest.approx(1.4 / 14)  # one decoding of two is scored
