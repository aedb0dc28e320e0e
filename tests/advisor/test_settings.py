import json

import pytest
from policies import SUMS, TINY

from advisor.cli import VERBS

STATIC = ["recommend", str(TINY), "--effort", "static"]


def write(folder, text):
    file = folder / "own.yaml"
    file.write_text(text)
    return str(file)


def test_a_file_sets_options_and_the_argument(cli, tmp_path):
    file = write(tmp_path, f"model: {TINY}\neffort: static\noutput-dir: {tmp_path}/run\njson: true\nquiet: true\n")
    code, out, err = cli("recommend", "--config", file)
    assert code == 0
    assert json.loads(out)["effort"] == "static"
    assert err == ""
    assert (tmp_path / "run" / "ranking.json").exists()


def test_the_command_line_goes_first(cli, tmp_path):
    file = write(tmp_path, "effort: probe\ndecoding: sampled\n")
    found = json.loads(cli(*STATIC, "--config", file, "--json", "--output-dir", str(tmp_path / "run"))[1])
    assert found["effort"] == "static"
    assert found["protocol"]["decoding"] == "sampled"


def test_a_verb_takes_its_own_section_only(cli, tmp_path):
    file = write(tmp_path, "decoding: greedy\nrecommend: {decoding: sampled}\nverify: {layer: 3}\nsweep:\n")
    found = json.loads(cli(*STATIC, "--config", file, "--json", "--output-dir", str(tmp_path / "run"))[1])
    assert found["protocol"]["decoding"] == "sampled"


def test_lists_and_mappings_become_what_the_command_line_takes(cli, tmp_path):
    file = write(
        tmp_path,
        f"data: {SUMS}\nreward: exact\ngroups: 8\nmax-prompts: 32\nmax-new-tokens: 4\nprobe: [depth, gradients]\n",
    )
    code, out, _ = cli("probe", str(TINY), "--config", file, "--json")
    assert code == 0
    assert {"relative_depth", "grad_norm"} <= set(json.loads(out)["columns"])
    file = write(tmp_path, "learning-rates: [1e-4, x]\n")
    assert "'1e-4,x' is not a list of numbers" in cli("verify", str(TINY), "--layer", "1", "--config", file)[2]
    file = write(tmp_path, "task-config: {min_terms: 2}\n")
    assert "--task-config has no effect" in cli(*STATIC, "--config", file)[2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("grups: 3", "Did you mean 'groups'"),
        ("layer: 3", "'VERB: {layer: …}'"),
        ("- a\n- b", "holds no options"),
        ("a: [", "cannot be read"),
        ("json: maybe", "write true or false"),
        ("effort: {a: 1}", "a mapping is not allowed"),
        ("groups: many", "is not a valid integer"),
    ],
)
def test_a_wrong_file_is_told_and_is_wrong_usage(cli, tmp_path, text, told):
    code, _, err = cli(*STATIC, "--config", write(tmp_path, text))
    assert code == 2
    assert told in " ".join(err.split())


def test_a_missing_file_is_wrong_usage(cli, tmp_path):
    code, _, err = cli(*STATIC, "--config", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in err


def test_quiet_leaves_errors(cli, tmp_path):
    code, _, err = cli("recommend", str(tmp_path / "none"), "--quiet")
    assert code == 2
    assert err.startswith("Error: There is no file")
    assert len(err.splitlines()) == 1


def test_debug_shows_where(cli, monkeypatch):
    import sys

    from advisor.cli import main
    from probes.errors import UsageError

    monkeypatch.setattr(sys, "argv", ["advisor", "recommend", "/none", "--debug"])
    with pytest.raises(UsageError):
        main()


def test_every_verb_understands_them(cli):
    for verb in VERBS:
        if verb != "completion":
            told = cli(verb, "--help")[1]
            assert all(option in told for option in ("--config", "--json", "--quiet", "--debug")), verb
