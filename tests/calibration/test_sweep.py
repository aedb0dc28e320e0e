import pytest
from policies import Kept
from sweeps import BEST_RATE, TRUTH, N, Planted, measured, record

from calibration.protocol import Protocol
from calibration.runs import FULL, Run
from calibration.sweep import count_runs, measure_contributions
from probes.training import TrainingConfig


@pytest.mark.parametrize(("rate_by", "n_runs"), [("every_seed", 45), ("first_seed", 25)])
def test_each_arm_is_judged_at_its_own_best_rate(rate_by, n_runs):
    perform = Planted()
    sweep = measured(perform, rate_by)
    assert len(perform.asked) == len(set(perform.asked)) == n_runs == count_runs(sweep.protocol, 5)
    results = sweep.results("greedy")
    assert {r.layers: r.learning_rate for r in results.values()} == BEST_RATE
    assert results["layer 1"].score.value == pytest.approx(0.61, abs=0.02)
    assert results["layer 1"].contribution.value == pytest.approx(0.8, abs=0.03)
    assert results[FULL].contribution.value == pytest.approx(1.0)
    assert max((r for r in results.values() if r.layers), key=lambda r: r.score.value).layers == (1,)
    assert results["layer 1"].seeds == [0, 1, 2]
    assert sweep.seed_agreement("greedy") == pytest.approx(1.0)


def test_the_rate_is_chosen_on_validation_under_the_asked_decoding():
    """Planted: sampled validation prefers the worst greedy rate."""
    sweep = measured(Planted(), decoding="sampled")
    assert sweep.chosen_rate((1,)) != BEST_RATE[1,]


def test_seeds_that_try_one_rate_do_not_change_the_choice():
    """Planted: later seeds do worse, so that their mean at the chosen rate falls below another rate's first seed."""

    class Falling(Planted):
        def __call__(self, runs):
            for run, found in super().__call__(runs):
                found["validation"] = {d: v - 0.15 * run.seed for d, v in found["validation"].items()}
                yield run, found

    results = measured(Falling(), "first_seed").results("greedy")
    assert {r.layers: r.learning_rate for r in results.values()} == BEST_RATE
    assert all(r.seeds == [0, 1, 2] for r in results.values())


def test_held_out_scores_play_no_part_in_the_choice():
    class Misleading(Planted):
        def __call__(self, runs):
            for run, found in super().__call__(runs):
                if run.learning_rate != BEST_RATE[run.layers]:
                    found["held_out"] = {d: [1.0] * N for d in ("greedy", "sampled")}
                yield run, found

    assert measured(Misleading()).results("greedy")["layer 1"].learning_rate == BEST_RATE[1,]


def test_a_stopped_measurement_goes_on_with_nothing_run_twice():
    memory, first = Kept(), Planted(stop_after=17)
    with pytest.raises(KeyboardInterrupt):
        measured(first, memory=memory)
    second = Planted()
    sweep = measured(second, memory=memory)
    assert len(first.asked) == 17
    assert len(second.asked) == 45 - 17
    assert not set(first.asked) & set(second.asked)
    whole = measured(Planted())
    assert sweep.results("greedy") == whole.results("greedy")


def test_a_run_that_broke_down_is_no_score():
    sweep = measured(Planted(broken=[((1,), 1e-4)]))
    assert sweep.chosen_rate((1,)) != 1e-4
    assert sweep.results("greedy")["layer 1"].score.value == pytest.approx(0.41, abs=0.02)
    nothing = measured(Planted(broken=[(1,)])).results("greedy")["layer 1"]
    assert (nothing.score, nothing.contribution, nothing.learning_rate) == (None, None, None)
    assert "not finite" in nothing.failures[0]
    full = measured(Planted(broken=[None])).results("greedy")
    assert full["layer 1"].contribution is None
    assert full["layer 1"].score.value > 0.5


def test_agreement_needs_seeds_and_layers():
    protocol = Protocol(TrainingConfig(steps=3), learning_rates=(1e-4,), seeds=1)
    sweep = measure_contributions(protocol, list(TRUTH), record(Run(None, 0, 0.0), 0.2), Planted())
    assert sweep.seed_agreement("greedy") is None
