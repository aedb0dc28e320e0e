"""A dry run says what the run will do, and does nothing."""

import json

import pytest
from policies import SUMS, TINY

from advisor import subject
from probes import packaged
from probes.training.memory import training_bytes

SUM = ["--data", str(SUMS), "--reward", "exact", "--max-new-tokens", "4"]
TRAINING = [
    "--steps",
    "2",
    "--seeds",
    "2",
    "--learning-rates",
    "1e-3,3e-3",
    "--held-out",
    "40",
    "--interval-width",
    "1",
]


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subject, "load_policy", lambda *args, **kwargs: pytest.fail("the policy was loaded"))
    yield
    assert list(tmp_path.iterdir()) == []


def plan_of(cli, *command):
    code, out, _ = cli(*command, "--dry-run", "--json")
    assert code == 0
    return json.loads(out)


def test_a_recommendation(cli):
    plan = plan_of(cli, "recommend", str(TINY), *SUM)
    assert plan["model"]["n_layers"] == 6
    assert plan["task"]["train_prompts"] + plan["task"]["held_out_prompts"] == len(SUMS.read_text().splitlines())
    assert plan["completions"] == 128 * 8
    assert plan["seconds"]["total"] == pytest.approx(
        sum(v for stage, v in plan["seconds"].items() if stage != "total"), abs=1
    )
    assert "probe gradients" in plan["seconds"]
    assert plan["output_dir"].startswith("advisor-runs/tiny-policy-sums-probe-")


def test_a_race_and_a_proof(cli):
    plan = plan_of(cli, "recommend", str(TINY), *SUM, *TRAINING, "--effort", "warmup", "--verify")
    assert "train 18 single-layer policies" in plan["does"][-1]
    assert "train the pick, layer 3, all parameters" in plan["verify"]["does"][0]
    assert plan["verify"]["training_runs"] == 3 * 2 + 3  # both rates with the first seed, then the better one


def test_a_sweep_has_all_its_runs(cli, tiny):
    plan = plan_of(cli, "sweep", str(TINY), *SUM, *TRAINING)
    assert plan["training_runs"] == 7 * 2 * 2
    assert plan["completions"] == 28 * 2 * 16 * 8
    half = plan_of(cli, "sweep", str(TINY), *SUM, *TRAINING, "--layers", "0-2", "--reference", "none")
    assert half["training_runs"] == 3 * 2 * 2
    assert half["seconds"]["train"] < plan["seconds"]["train"]
    assert half["memory_bytes"] is None
    assert plan["memory_bytes"] > training_bytes(tiny, None)  # which leaves out activations, logits and the cache


def test_a_budget_bounds_the_time(cli):
    plan = plan_of(cli, "verify", str(TINY), "--layer", "1", *SUM, *TRAINING, "--budget", "60s")
    assert plan["seconds"]["total"] <= 61
    assert "fit into the budget" in plan["does"][1]


def test_people_read_it(cli):
    code, out, _ = cli("verify", str(TINY), "--layer", "1", *SUM, *TRAINING, "--dry-run")
    assert code == 0
    assert "nothing has been run" in out
    assert "layer 1, layer 3, all parameters" in out
    assert "all  " in out


def test_the_default_policy_is_not_fetched(cli, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ADVISOR_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(packaged, "_download", lambda *args: pytest.fail("fetched"))
    plan = plan_of(cli, "probe", "smollm2-135m", "--effort", "static")
    assert plan["model"]["to_be_fetched"]
    assert plan["model"]["parameters"] == 134_515_008


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["verify", str(TINY), "--layer", "9"], "Layer 9 is out of range"),
        (["recommend", str(TINY), "--layers", "7"], "the policy has 6"),
        (["recommend", str(TINY), "--predictor", "none"], "none"),
        (["recommend", str(TINY), "--verify", "--effort", "static"], "--verify trains on a task"),
        (["sweep", "/none"], "There is no file or folder"),
    ],
)
def test_wrong_usage_is_found(cli, command, told):
    options = [] if "static" in command or command[-1] == "/none" else [*SUM, "--interval-width", "1"]
    options = [o for o in options if command[0] != "recommend" or o not in ("--interval-width", "1")]
    code, out, err = cli(*command, *options, "--dry-run")
    assert code == 2
    assert out == ""
    assert told in " ".join(err.split())
