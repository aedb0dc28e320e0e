import numpy as np
import pytest

from calibration.contribution import Scores, interval_width, prompts_needed, widening
from probes.errors import RunError


def scores_of(base, arms) -> Scores:
    """Rows are seeds 0, 1, ..."""
    return Scores(base, {name: dict(enumerate(rows)) for name, rows in arms.items()})


def drawn(rng, chance, n_seeds=3, n=400):
    return (rng.random((n_seeds, n)) < chance).astype(float)


def test_contribution_is_the_share_of_the_full_gain():
    base, full, layer = np.zeros(200), np.full((3, 200), 0.8), np.full((2, 200), 0.4)
    scores = scores_of(base, {"full": full, "layer 1": layer})
    assert scores.score("full").value == pytest.approx(0.8)
    assert scores.gain("layer 1").value == pytest.approx(0.4)
    found = scores.contribution("layer 1", "full")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert scores.contribution("full", "full").value == pytest.approx(1.0)
    assert scores.difference("full", "layer 1").value == pytest.approx(0.4)


def test_by_hand():
    base = np.array([0.0, 1.0, 0.0, 0.0])
    scores = scores_of(base, {"full": np.ones((2, 4)), "k": np.array([[0.0, 1, 1, 0], [0.0, 1, 1, 1]])})
    assert scores.score(None).value == 0.25
    assert scores.contribution("k", "full").value == pytest.approx((0.625 - 0.25) / 0.75)


def test_no_contribution_without_a_gain_of_full_training():
    """Null: full training that changes nothing leaves nothing to have a share of."""
    rng = np.random.default_rng(0)
    base = drawn(rng, 0.5, 1)[0]
    scores = scores_of(base, {"full": drawn(rng, 0.5), "layer 0": drawn(rng, 0.9)})
    assert scores.contribution("layer 0", "full") is None
    assert scores.gain("layer 0").above_zero


def test_arms_are_compared_on_the_same_prompts():
    """Prompts differ much, arms hardly: the paired difference is sharp although each score is not."""
    rng = np.random.default_rng(1)
    hard = rng.random(300) < 0.5
    a = np.tile(np.where(hard, 0.0, 1.0), (3, 1))
    scores = scores_of(np.zeros(300), {"full": np.ones((3, 300)), "a": a, "b": a - 0.05})
    difference = scores.difference("a", "b")
    assert difference.high - difference.low < 0.01 < scores.score("a").high - scores.score("a").low


def test_seeds_widen_the_interval():
    apart = np.repeat([[0.2], [0.5], [0.8]], 400, axis=1)
    alike = np.full((3, 400), 0.5)
    wide, narrow = (scores_of(np.zeros(400), {"full": arm}).score("full") for arm in (apart, alike))
    assert wide.high - wide.low > 0.4
    assert narrow.high - narrow.low < 1e-9
    assert widening(3) == pytest.approx(1.5**0.5)
    assert widening(1) == 1.0


@pytest.mark.parametrize("seed_spread", [0.0, 0.05])
def test_intervals_cover_the_truth(seed_spread):
    """Nominal 90 %; here at least 84 % of 100 simulated measurements. The benchmark `intervals` has more cases."""
    rng, covered = np.random.default_rng(2), []
    for _ in range(100):
        effect = lambda gain: 0.3 + gain + seed_spread * rng.normal(size=(3, 1))  # noqa: E731
        arms = {"full": drawn(rng, effect(0.3), n=128), "k": drawn(rng, effect(0.2), n=128)}
        found = scores_of(drawn(rng, 0.3, 1, 128)[0], arms).contribution("k", "full")
        covered.append(found is not None and found.low <= 2 / 3 <= found.high)
    assert np.mean(covered) >= 0.84


def test_unscored_prompts_are_dropped_for_all_arms():
    base = np.array([0.0, np.nan, 0.0, 0.0])
    full = np.array([[1.0, 1.0, np.nan, 1.0], [1.0, 1.0, 1.0, 1.0]])
    scores = scores_of(base, {"full": full})
    assert scores.n_prompts == 2
    assert scores.gain("full").value == 1.0
    with pytest.raises(RunError, match="None on every held-out prompt"):
        scores_of(np.array([np.nan]), {})


def test_how_many_prompts_a_width_takes():
    assert [prompts_needed(w) for w in (0.3, 0.2, 0.1)] == [31, 68, 271]
    assert interval_width(271) == pytest.approx(0.1, abs=1e-3)


def test_seeds_that_an_arm_lacks_are_not_taken_from_others():
    """Seed 1 is lucky for both arms: paired by seed, their difference does not vary."""
    luck = {0: 0.2, 1: 0.5, 2: 0.3}
    arms = {
        name: {seed: np.full(200, value + shift) for seed, value in luck.items()}
        for name, shift in (("a", 0.1), ("b", 0))
    }
    found = Scores(np.zeros(200), arms).difference("a", "b")
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    del arms["a"][0]
    lacking = Scores(np.zeros(200), arms)
    assert lacking.score("a").value == pytest.approx(0.5)
    assert lacking.score("b").value == pytest.approx(1 / 3)
    assert lacking.score("a").low >= 0.3


def test_the_regret_of_the_best_is_what_measuring_again_would_show():
    """Slow reference: sweeps of the same truth, drawn anew; what all layers share does not count."""
    rng, truth = np.random.default_rng(0), np.array([0.4, 0.5, 0.55])
    said, shown = [], []
    for _ in range(60):
        hard = rng.random(300)

        def sweep(hard=hard):
            drawn = rng.choice(hard, 300)
            return {str(i): {0: (drawn < t).astype(float), 1: (drawn < t).astype(float)} for i, t in enumerate(truth)}

        scores = Scores(np.zeros(300), sweep())
        said.append(scores.regret_of_best(["0", "1", "2"]))
        again = [np.mean(list(sweep()[str(i)].values())) for i in range(3)]
        best = int(np.argmax([scores.arms[str(i)].mean() for i in range(3)]))
        shown.append(max(again) - again[best])
    assert np.mean(said) == pytest.approx(np.mean(shown), abs=0.004)
    assert np.mean(said) < 0.01
