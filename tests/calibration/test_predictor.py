import gzip
import json

import numpy as np
import pytest
from pairs import make_pair, planted_corpus
from scipy.stats import spearmanr

from calibration.candidates import CANDIDATES
from calibration.examples import make_examples
from calibration.features import feature_names
from calibration.fitting import choose_candidate, fit_predictors
from calibration.predictor import SHIPPED, Predictor, fit, with_sweep
from calibration.race import ANSWERS, EXPECTED, Race, Rung
from probes.errors import UsageError
from probes.registry import DECODINGS, EFFORTS


@pytest.fixture(scope="module")
def planted():
    return planted_corpus()


@pytest.fixture(scope="module")
def predictor(planted):
    examples = make_examples(planted, "probe", "greedy")
    return Predictor("probe", "greedy", "ridge", feature_names("probe"), examples)


@pytest.mark.parametrize("candidate", [name for name in CANDIDATES if not name.startswith("depth")])
def test_every_candidate_finds_a_planted_effect_in_a_family_it_has_not_seen(planted, candidate):
    examples = make_examples(planted, "probe", "greedy")
    model = fit(candidate, [e for e in examples if e.family != "family0"])
    unseen = [e for e in examples if e.family == "family0"]
    found = [spearmanr(model.predict(with_sweep(e.x, -1)), e.contribution).statistic for e in unseen]
    assert np.mean(found) > 0.6


def test_the_candidate_that_is_chosen_uses_what_is_there_and_nothing_where_nothing_is(planted):
    name, errors = choose_candidate(make_examples(planted, "probe", "greedy"))
    assert name != "depth curve"
    assert errors[name] < 0.5 * errors["depth curve"]
    null = make_examples(planted_corpus(strength=0.0), "probe", "greedy")
    assert choose_candidate(null)[0] == "depth curve"


def test_a_prediction_orders_layers_by_the_planted_effect(predictor):
    example = predictor.examples[0]
    said = predictor.predict(example.x)
    assert spearmanr(said.advantage, example.contribution).statistic > 0.8
    assert said.advantage.mean() == pytest.approx(0, abs=1e-9)
    assert (said.advantage_low <= said.advantage).all()
    assert (said.advantage <= said.advantage_high).all()
    assert (said.low <= said.advantage_low + said.level).all()  # the level is not known either
    assert said.p_best.sum() == pytest.approx(1)
    assert said.p_top3.sum() == pytest.approx(3)
    assert said.p_best.argmax() == said.order[0] == np.argmax(said.advantage)
    assert said.unlike == []


def test_intervals_cover_unseen_families(planted):
    """Slow reference: predict each family by the others, and count."""
    inside = []
    for seed in range(3):
        pairs = planted_corpus(strength=0.5, seed=seed)
        examples = make_examples(pairs, "probe", "greedy")
        names = feature_names("probe")
        for family in {e.family for e in examples}:
            others = [e for e in examples if e.family != family]
            own = Predictor("probe", "greedy", "ridge, strong", names, others)
            for e in (e for e in examples if e.family == family):
                said = own.predict(e.x)
                inside += [
                    (low <= a <= high)
                    for low, a, high in zip(said.advantage_low, e.advantage, said.advantage_high, strict=True)
                ]
    assert 0.8 < np.mean(inside) < 0.99


def test_layers_whose_warm_ups_brought_nothing_come_last(predictor):
    x = predictor.examples[0].x
    best = predictor.predict(x).order[0]
    said = predictor.predict(x, idle={best})
    assert said.order[-1] == best
    assert said.p_best[best] == 0
    everything = predictor.predict(x, idle=set(range(len(x))))  # nobody to lead: the race says nothing
    assert everything.order[0] == best


def test_what_the_corpus_has_not_seen_is_said_and_widens_the_intervals(predictor):
    x = predictor.examples[0].x
    plain = predictor.predict(x)
    far = x.copy()
    far[0, predictor.names.index("fisher")] = 30.0
    said = predictor.predict(far)
    assert any("fisher" in what for what in said.unlike)
    width = lambda p: (p.advantage_high - p.advantage_low)[1:].mean()  # noqa: E731
    assert width(said) > 1.5 * width(plain)
    short = predictor.predict(x, race=raced(2, 4, 8))
    assert short.unlike == ["a race scored after 2, 4 and 8 steps (the corpus has 8)"]
    assert width(short) > width(plain)
    assert predictor.predict(x, race=raced(8)).unlike == []
    other = predictor.predict(x, race=raced(8, scored_by=EXPECTED))
    assert other.unlike == ["a race scored by expected reward (those of the corpus by answers)"]
    assert width(other) > width(plain)
    long = predictor.predict(np.repeat(x, 4, axis=0))
    assert any("32 layers (the corpus has 8 to 8)" in what for what in long.unlike)
    assert width(long) > 2 * width(plain)


def test_a_file_gives_the_same_predictions_and_no_code_runs(predictor, tmp_path):
    file = tmp_path / "probe-greedy.json.gz"
    predictor.save(file)
    again = Predictor.find("probe", "greedy", tmp_path)
    x = predictor.examples[1].x
    np.testing.assert_allclose(again.predict(x).advantage, predictor.predict(x).advantage, atol=1e-4)
    assert json.loads(gzip.decompress(file.read_bytes()))["data_sha256"] == again.data_hash


def raced(*steps, scored_by=ANSWERS) -> Race:
    return Race([Rung(step, 0.2, 64, [], 1.0) for step in steps], scored_by=scored_by)


def change(**fields):
    def write(file):
        told = json.loads(gzip.decompress(file.read_bytes())) | fields
        file.write_bytes(gzip.compress(json.dumps(told).encode()))

    return write


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b"junk"), "is not a predictor"),
        (change(schema_version=99), "schema version 99"),
        (change(candidate="oracle"), "'oracle' is unknown"),
        (change(data_sha256="0"), "do not fit their hash"),
        (change(effort="static"), "for effort static"),
        (lambda file: file.unlink(), "There is no predictor"),
    ],
)
def test_files_that_cannot_be_used(predictor, tmp_path, damage, said):
    file = tmp_path / "probe-greedy.json.gz"
    predictor.save(file)
    damage(file)
    with pytest.raises(UsageError, match=said):
        Predictor.find("probe", "greedy", tmp_path)


def test_other_features_are_refused(predictor):
    with pytest.raises(UsageError, match="3 features were given"):
        predictor.predict(np.zeros((4, 3)))


def test_too_few_families_are_refused(planted):
    two = [e for e in make_examples(planted, "static", "greedy") if e.family in ("family0", "family1")]
    with pytest.raises(UsageError, match=r"2 model families \(family0, family1\), at least 3"):
        choose_candidate(two)


def test_a_predictor_for_every_effort_and_decoding(planted, tmp_path):
    found = fit_predictors(planted, tmp_path)
    names = {Predictor.file_name(effort, decoding) for effort in EFFORTS for decoding in DECODINGS}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert all(set(fitted.errors) == set(CANDIDATES) for fitted in found)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_the_shipped_predictors_are_those_of_the_corpus(effort, decoding):
    predictor = Predictor.find(effort, decoding, SHIPPED)
    assert len(predictor.families) >= 8
    said = predictor.predict(predictor.examples[0].x)
    assert np.isfinite(said.contribution).all()


def test_a_long_stack_gets_its_chances_layer_by_layer():
    """Where nothing tells layers apart none may stand out, however the corpus's short sweeps are stretched."""
    null = make_examples(planted_corpus(strength=0.0, families=6, tasks=4), "static", "greedy")
    predictor = Predictor("static", "greedy", "depth curve", feature_names("static"), null)
    flat = np.zeros((30, len(predictor.names)))
    chances = predictor.predict(flat).p_best
    assert chances.max() < 4 / 30
    assert chances.min() > 0.2 / 30


def test_a_pair_without_a_known_gain_is_no_example():
    flat = make_pair("flat", np.full(4, 0.5), gain=0.005)
    assert make_examples([flat], "static", "greedy") == []
