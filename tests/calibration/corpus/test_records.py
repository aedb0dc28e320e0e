"""The corpus that is shipped."""

import pytest

from calibration.corpus.records import chosen_on, load_corpus
from calibration.race import ANSWERS
from calibration.reliability import reliability
from calibration.runs import FULL
from probes.registry import DECODINGS


@pytest.fixture(scope="module")
def whole():
    return [pair for pair in load_corpus() if pair.is_whole]


def test_it_is_as_large_as_the_readme_says(whole):
    assert len(whole) == 61
    assert len({pair.family for pair in whole}) == 9
    assert len({pair.member for pair in whole}) == 18
    assert {pair.n_layers for pair in whole} >= {4, 16}
    assert {pair.name for pair in whole} >= chosen_on()
    assert chosen_on()


def test_every_sweep_has_every_layer_with_two_seeds_and_its_reference(whole):
    for pair in whole:
        arms = {run["arm"] for run in pair.runs.values()}
        assert arms >= {f"layer {k}" for k in range(pair.n_layers)} | {FULL}
        assert len(pair.protocol.seed_numbers) == 2
        assert pair.head["sampled_scores"] in ("expected reward", "samples")
        assert pair.warmup["scored_by"]["greedy"] == ANSWERS
        assert (pair.others or {}).get("uni-layer")


def test_reliability_is_between_minus_one_and_one(whole):
    found = reliability(whole[0])
    assert all(-1 <= found[decoding]["prompt_halves"] <= 1 for decoding in DECODINGS)
