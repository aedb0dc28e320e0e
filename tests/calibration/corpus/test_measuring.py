"""What the corpus measures on a policy, against runs that are trained one after another."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from policies import model_state

from calibration.corpus.measuring import (
    WARMUP_STEPS,
    chosen_rates,
    expected_scores,
    measure_arm,
    measure_layers,
    measure_probes,
    measure_warmup,
)
from calibration.corpus.records import Pair, load_corpus, load_pair, save_pair
from calibration.corpus.replay import replay_race
from calibration.corpus.sets import measure_sets
from calibration.protocol import Protocol, split_task
from calibration.race import RaceRules
from calibration.runs import Run, perform, score_both
from probes.errors import UsageError
from probes.registry import DECODINGS, list_columns
from probes.training import TrainingConfig

PROTOCOL = Protocol(
    TrainingConfig(steps=3, prompts_per_step=4, group_size=4, max_new_tokens=4),
    learning_rates=(1e-3, 1e-2),
    seeds=2,
    held_out=24,
    validation=24,
    sampled_completions=2,
)


@pytest.fixture(scope="module")
def measured(_tiny, sums):
    split, before = split_task(sums, PROTOCOL), model_state(_tiny.model)
    base = expected_scores(_tiny, sums, split, PROTOCOL, 4)
    runs = {run.key: record for run, record in measure_arm(_tiny, sums, split, PROTOCOL, base, None)}
    runs |= {run.key: record for run, record in measure_layers(_tiny, sums, split, PROTOCOL, base)}
    probes, warmup = measure_probes(_tiny, sums, PROTOCOL), measure_warmup(_tiny, sums, split, PROTOCOL)
    assert model_state(_tiny.model) == before
    head = {
        "policy": {"family": "llama", "member": "tiny", "n_layers": 6, "fingerprint": "", "layer_parameters": [1] * 6},
        "task": {"name": "sums"},
        "protocol": PROTOCOL.as_dict(),
    }
    return Pair("tiny.sums", head, base, runs, probes, warmup), split


def test_every_layer_has_every_rate_once_and_its_chosen_rates_with_every_seed(measured):
    pair, _ = measured
    for layers in [(k,) for k in range(6)] + [None]:
        for rate in PROTOCOL.learning_rates:
            assert Run(layers, 0, rate).key in pair.runs
        chosen = chosen_rates(PROTOCOL, pair.base, pair.runs, layers)
        for rate in PROTOCOL.learning_rates:
            assert (Run(layers, 1, rate).key in pair.runs) == (rate in chosen)
        assert all(pair.runs[Run(layers, s, rate).key]["held_out"] for rate in chosen for s in (0, 1))
        results = [pair.sweep(decoding).results(decoding) for decoding in DECODINGS]
        assert all(len(arm.seeds) == 2 for found in results for arm in found.values())


@pytest.mark.parametrize("layer", [0, 3, 5])
def test_layers_trained_together_score_as_alone(measured, tiny, sums, layer):
    """Slow reference: the same runs by `perform`."""
    pair, split = measured
    for rate in chosen_rates(PROTOCOL, pair.base, pair.runs, (layer,)):
        run = Run((layer,), 1, rate)
        alone, together = perform(tiny, sums, split, PROTOCOL, run, score=expected_scores), pair.runs[run.key]
        assert together["validation"] == pytest.approx(alone["validation"], abs=0.05)
        for decoding in DECODINGS:
            assert np.mean(together["held_out"][decoding]) == pytest.approx(
                np.mean(alone["held_out"][decoding]), abs=0.05
            )
        assert together["rewards"] == pytest.approx([step["reward"] for step in alone["curve"]], abs=0.07)
        assert together["trained_parameters"] == alone["trained_parameters"]


def test_expected_scores_are_what_many_samples_estimate(tiny, sums):
    split = split_task(sums, PROTOCOL)
    exact = expected_scores(tiny, sums, split, PROTOCOL, 4)
    sampled = score_both(tiny, sums, split, replace(PROTOCOL, sampled_completions=64), 4)
    assert exact["held_out"]["greedy"] == sampled["held_out"]["greedy"]
    own, other = (np.array(found["held_out"]["sampled"]) for found in (exact, sampled))
    error = np.sqrt(own * (1 - own) / 64) + 0.01
    assert (np.abs(own - other) < 4 * error).all()


def test_probes_and_warm_ups_are_whole(measured):
    pair, _ = measured
    assert set(pair.table.columns) == set(list_columns("probe"))
    assert [rung["step"] for rung in pair.warmup["rungs"]] == list(WARMUP_STEPS)
    for rung in pair.warmup["rungs"]:
        for decoding in DECODINGS:
            assert len(rung["base"][decoding]) == 24
            assert len(rung["scores"][decoding]) == 12
    assert set(pair.warmup["rungs"][-1]["sampled_answers"]) == set(rung["scores"]["sampled"])
    race = replay_race(pair, "greedy", RaceRules(rungs=WARMUP_STEPS))
    assert race.entered == 12
    assert sorted(race.order()) == list(range(6))


def test_a_file_gives_the_pair_back(measured, tmp_path):
    pair, _ = measured
    file = save_pair(pair, tmp_path)
    again = load_pair(file)
    assert (again.name, again.head, again.base, again.runs) == (pair.name, pair.head, pair.base, pair.runs)
    assert (again.probes, again.warmup, again.protocol) == (pair.probes, pair.warmup, PROTOCOL)
    assert [found.name for found in load_corpus([tmp_path])] == ["tiny.sums"]
    assert file.read_bytes() == save_pair(again, tmp_path).read_bytes()


def test_a_damaged_file_is_named(measured, tmp_path):
    file = save_pair(measured[0], tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"tiny\.sums\.jsonl\.gz' is not a pair of the corpus"):
        load_corpus([tmp_path])


def test_an_arm_that_breaks_down_is_a_record_with_its_reason(tiny, sums):
    wild = replace(PROTOCOL, learning_rates=(1e-3, 0.99), training=replace(PROTOCOL.training, steps=8))
    split = split_task(sums, wild)
    base = expected_scores(tiny, sums, split, wild, 4)
    runs = {run.key: record for run, record in measure_layers(tiny, sums, split, wild, base)}
    for record in runs.values():
        assert (record["failed"] is None) == ("validation" in record)
        assert record["failed"] is None or record["held_out"] is None


def test_the_reliability_of_the_sweep_is_in_the_file(measured, tmp_path):
    lines = gzip.decompress(save_pair(measured[0], tmp_path).read_bytes()).decode().splitlines()
    found = next(line for line in map(json.loads, lines) if line["kind"] == "reliability")
    for decoding in DECODINGS:
        assert -1 <= found[decoding]["prompt_halves"] <= 1
        assert found[decoding]["seeds"] == pytest.approx(measured[0].sweep(decoding).seed_agreement(decoding), abs=1e-4)


def test_sets_of_layers_are_measured_beside_the_single_ones(measured, tiny, sums):
    pair, split = measured
    runs = dict(pair.runs)
    runs |= {run.key: record for run, record in measure_sets(pair, tiny, sums, split)}
    found = replace(pair, runs=runs)
    assert {len(run["layers"]) for run in found.layer_set_runs} == {2, 3, 5}
    assert found.sweep("greedy").results("greedy").keys() == pair.sweep("greedy").results("greedy").keys()
