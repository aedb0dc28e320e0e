"""From one's own sweep to a predictor, and to a recommendation that uses it."""

import json

import pytest
from pairs import planted_corpus
from policies import SUMS, TINY

from calibration.corpus import records

SWEEP = ["--data", str(SUMS), "--reward", "exact", "--steps", "3", "--seeds", "2", "--learning-rates", "1e-3,1e-2"]
SMALL = [
    "--prompts-per-step",
    "4",
    "--group-size",
    "4",
    "--max-new-tokens",
    "4",
    "--held-out",
    "40",
    "--validation",
    "24",
]
QUICK = ["--data", str(SUMS), "--reward", "exact", "--groups", "8", "--max-prompts", "32", "--max-new-tokens", "4"]


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for pair in planted_corpus(families=3, tasks=2, layers=6):
        records.save_pair(pair, folder)
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    import advisor
    from advisor.measuring_options import MeasuringOptions
    from calibration.protocol import Protocol
    from probes.tasks import load_task
    from probes.training import TrainingConfig

    folder = tmp_path_factory.mktemp("swept") / "sweep"
    training = TrainingConfig(steps=6, prompts_per_step=8, group_size=4, max_new_tokens=4)
    protocol = Protocol(training, (3e-3, 1e-2), seeds=2, rate_by="every_seed", held_out=60, validation=24)
    options = MeasuringOptions(protocol, max_new_tokens=4, interval_width=0.9, device="cpu")
    task = load_task(data=str(SUMS), reward="exact")
    advisor.sweep(str(TINY), task=task, options=options, output_dir=folder)
    return folder


def test_calibrate_then_recommend(cli, swept, small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("advisor.calibrating.SMALL_POLICIES", small_corpus)
    target = str(tmp_path / "mine")
    code, out, err = cli("calibrate", str(swept), "--output-dir", target, "--device", "cpu")
    assert code == 0
    assert out.count("greedy") == out.count("sampled") == 3
    assert "--predictor" in err
    assert len(list((tmp_path / "mine" / "pairs").iterdir())) == 1
    again = cli("calibrate", str(swept), "--output-dir", target, "--device", "cpu", "--json")
    assert "measure sweep" not in again[2]
    told = json.loads(again[1])
    assert {one["effort"] for one in told["predictors"]} == {"static", "probe", "warmup"}
    code, out, _ = cli(
        "recommend", str(TINY), *QUICK, "--predictor", target, "--json", "--output-dir", str(tmp_path / "run")
    )
    found = json.loads(out)
    assert code == 0
    own = next(one for one in told["predictors"] if (one["effort"], one["decoding"]) == ("probe", "greedy"))
    assert found["predictor"]["data_sha256"] == own["data_sha256"]
    measured = json.loads((swept / "sweep.json").read_text())["greedy"]
    if measured["layers"][0]["contribution"] is not None:
        assert [sweep["source"] for sweep in found["known_sweeps"]] == ["a sweep of this policy"]
        contributions = {str(layer["layer"]): layer["contribution"] for layer in measured["layers"]}
        assert found["known_sweeps"][0]["contributions"] == pytest.approx(contributions, abs=1e-4)
        assert "measured contributions, best first" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no sweep"),
        ({"kind": "verification"}, "holds a verification, not a sweep"),
        ({"kind": "sweep", "model": {"n_layers": 2}}, "lacks layer 0, layer 1, full"),
    ],
)
def test_what_is_no_whole_sweep_is_refused_at_once(cli, tmp_path, content, said):
    if content is not None:
        (tmp_path / "sweep.json").write_text(json.dumps(content))
        (tmp_path / "journal.jsonl").write_text("")
    code, _, err = cli("calibrate", str(tmp_path), "--output-dir", str(tmp_path / "out"))
    assert code == 2
    assert said in err.replace("\n", " ")


def test_no_sweep_at_all_is_refused(cli, tmp_path):
    code, _, err = cli("calibrate", "--no-corpus", "--output-dir", str(tmp_path / "out"))
    assert code == 2
    assert "no sweep to fit on" in err


def test_a_predictor_that_is_not_there_is_refused_before_anything_slow(cli, tmp_path):
    code, _, err = cli("recommend", str(TINY), *QUICK, "--predictor", str(tmp_path / "none"))
    assert code == 2
    assert "There is no predictor" in err
    assert "sample rollouts" not in err
