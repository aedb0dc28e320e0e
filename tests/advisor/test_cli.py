import json
import subprocess
import sys

import pytest
from policies import SUMS, TINY

QUICK = ["--data", str(SUMS), "--reward", "exact", "--groups", "8", "--max-prompts", "32", "--max-new-tokens", "4"]


def test_recommend_writes_its_folder_and_goes_on(cli, tmp_path):
    command = ["recommend", str(TINY), *QUICK, "--output-dir", str(tmp_path / "run")]
    code, out, err = cli(*command)
    assert code == 0
    assert "Train layer" in out
    assert "P(best)" in out
    assert "left" in err
    assert "Report:" in err
    names = {p.name for p in (tmp_path / "run").iterdir() if p.name != ".lock"}
    assert names == {"config.json", "environment.json", "journal.jsonl", "ranking.json", "report.html", "report.md"}
    again = cli(*command)
    assert again[0] == 0
    assert "going on with the run" in again[2]
    assert "probe gradients" not in again[2]


def test_default_folder_is_the_runs_own(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "1"):
        assert cli("recommend", str(TINY), *QUICK, "--seed", seed)[0] == 0
    folders = sorted(p.name for p in (tmp_path / "advisor-runs").iterdir())
    assert len(folders) == 2
    assert all(name.startswith("tiny-policy-sums-probe-") for name in folders)


def test_a_dry_run_names_the_folder_and_what_is_finished_there(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dry = lambda: json.loads(cli("recommend", str(TINY), *QUICK, "--dry-run", "--json")[1])  # noqa: E731
    assert dry()["finished_measurements"] == 0
    assert not (tmp_path / "advisor-runs").exists()
    cli("recommend", str(TINY), *QUICK)
    assert dry()["output_dir"] == f"advisor-runs/{next((tmp_path / 'advisor-runs').iterdir()).name}"
    assert dry()["finished_measurements"] > 5


def test_json_on_stdout_is_the_ranking_file(cli, tmp_path):
    code, out, _ = cli("recommend", str(TINY), *QUICK, "--json", "--output-dir", str(tmp_path / "run"))
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "run" / "ranking.json").read_text())


def test_same_seed_same_numbers(cli, tmp_path):
    found = [
        json.loads(cli("recommend", str(TINY), *QUICK, "--json", "--output-dir", str(tmp_path / name))[1])
        for name in ("a", "b")
    ]
    assert found[0]["layers"] == found[1]["layers"]


def test_static_effort(cli, tmp_path):
    code, out, err = cli("recommend", str(TINY), "--effort", "static", "--output-dir", str(tmp_path / "run"))
    assert code == 0
    assert "effort static" in out
    assert "sample rollouts" not in err


def test_probe_prints_the_table_alone(cli, tmp_path):
    code, out, _ = cli("probe", str(TINY), *QUICK, "--output-dir", str(tmp_path))
    assert code == 0
    assert "cross_half_cosine" in out
    assert "Train layer" not in out
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table["columns"]["fisher"]["values"]) == 6
    code, out, _ = cli("probe", str(TINY), *QUICK, "--probe", "gradients", "--json")
    assert set(json.loads(out)["columns"]) == {
        "grad_norm",
        "relative_grad_norm",
        "fisher",
        "grad_snr",
        "cross_half_cosine",
        "adam_gain",
    }


@pytest.mark.parametrize("verb", ["tasks", "probes", "env"])
def test_lists(cli, verb):
    code, out, _ = cli(verb)
    assert code == 0
    assert {"tasks": "subtraction", "probes": "Auto-RGN", "env": "transformers"}[verb] in out
    assert json.loads(cli(verb, "--json")[1])


def test_probes_are_listed_with_unit_cost_and_source(cli):
    for probe in json.loads(cli("probes", "--json")[1])["probes"]:
        assert probe["cost"]
        assert probe["source"]
        assert all({"name", "unit", "meaning"} <= set(column) for column in probe["columns"])


@pytest.mark.parametrize("reward", ["0.0", "None"])
def test_a_verdict_ends_with_code_3_and_a_report(cli, tmp_path, reward):
    (tmp_path / "flat.py").write_text(f"def reward(completions, **kwargs): return [{reward}] * len(completions)\n")
    options = [*QUICK[:2], "--reward", f"{tmp_path}/flat.py:reward", *QUICK[4:]]
    code, out, _ = cli("recommend", str(TINY), *options, "--output-dir", str(tmp_path / "run"))
    assert code == 3
    assert "by position alone" in " ".join(out.split())
    assert json.loads((tmp_path / "run" / "ranking.json").read_text())["verdict"]["kind"] == "constant_reward"


def test_help_is_there_for_every_verb_and_loads_no_torch():
    script = (
        "import sys\nfrom advisor.cli import cli\n"
        "for verb in ([], ['recommend'], ['probe'], ['tasks'], ['probes'], ['env']):\n"
        "    cli.main([*verb, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'captum', 'matplotlib', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == 6
