import pytest
from profiles import profile
from scipy.stats import spearmanr

from calibration import profiles
from calibration.corpus.records import SMALL_POLICIES, load_pair
from calibration.depth_prior import published_sweeps
from calibration.profiles import (
    benchmark_agreement,
    corpus_families,
    gain_is_sure,
    load_families,
    pair_profile,
    protocol_differences,
    published_families,
    published_profiles,
)
from probes.errors import UsageError


def test_a_pair_of_the_corpus_as_a_profile():
    pair = load_pair(SMALL_POLICIES / "llama-8x64-seed0.sort.larger.jsonl.gz")
    found = pair_profile(pair, "greedy")
    results = pair.sweep("greedy").results("greedy")
    assert (found.model, found.member, found.family) == ("llama-8x64-seed0.sort", "llama-8x64-seed0", "llama")
    assert found.is_whole
    assert found.values == {k: results[f"layer {k}"].contribution.value for k in range(8)}
    assert all(low <= found.values[k] <= high for k, (low, high) in found.ends.items())
    assert found.seed_agreement == pair.sweep("greedy").seed_agreement("greedy")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("llama-8x64-seed0.shift.shift", "no layer was trained"),
        ("llama-8x64-seed0.sort.sort", "not known well enough"),
    ],
)
def test_a_pair_without_a_known_gain_has_none(name, why):
    assert why in pair_profile(load_pair(SMALL_POLICIES / f"{name}.jsonl.gz"), "greedy")


def test_families_of_the_corpus_are_found_without_reading_the_sweeps():
    found = corpus_families()
    assert len(found) == 9
    assert sum(map(len, found.values())) == len(list(SMALL_POLICIES.glob("*.jsonl.gz")))
    assert {file.name.split("-")[0] for file in found["qwen3"]} == {"qwen3"}


def test_an_unknown_family():
    with pytest.raises(UsageError, match="Unknown family 'lama'. Did you mean 'llama'"):
        load_families(["lama"], "greedy")


def test_published_sweeps_as_profiles():
    found, left_out = load_families(["published"], "greedy")
    assert left_out == {}
    assert len(found) == len(published_sweeps())
    assert {p.family for p in found} == set(published_families())
    whole = next(p for p in found if p.is_whole)
    assert (whole.model, whole.n_layers, whole.best) == ("Qwen3-1.7B-Base", 28, 10)
    assert published_profiles("sampled") == []


def test_benchmarks_of_one_run_are_compared():
    found = benchmark_agreement(["Qwen3-1.7B-Base"])
    layers = next(s["layers"] for s in published_sweeps() if s["model"].endswith("Qwen3-1.7B-Base"))
    by_name = {(b["a"], b["b"]): b["spearman"] for b in found}
    assert len(found) == 6
    expected = spearmanr([la["math500"] for la in layers], [la["olympiad"] for la in layers]).statistic
    assert by_name["MATH500", "OlympiadBench"] == pytest.approx(expected)


@pytest.mark.parametrize(("gain", "low", "sure"), [(0.4, 0.3, True), (0.4, 0.1, False), (-0.1, -0.2, False)])
def test_gains_that_shares_can_be_taken_of(gain, low, sure):
    assert gain_is_sure(gain, low) is sure


def test_protocols_that_differ_are_told():
    a, b = (
        profile("a", [0, 1], protocol={"steps": 30, "kl": 0.0}),
        profile("b", [0, 1], protocol={"steps": 8, "kl": 0.0}),
    )
    assert protocol_differences([a, b]) == {"steps": [30, 8]}
    assert protocol_differences([a, a]) == {}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "broken.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(UsageError, match=r"broken\.jsonl\.gz"):
        profiles.corpus_families(tmp_path)
