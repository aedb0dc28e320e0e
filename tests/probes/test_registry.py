"""Registration, and the worked example of probes/README.md as a user would run it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import SUMS, TINY

import advisor
from probes import registry
from probes.errors import ProbeFailure, UsageError
from probes.measure import Measurement
from probes.registry import Column, get_probe, list_columns, list_probes, probe
from probes.table import LayerTable

README = Path(registry.__file__).with_name("README.md")


@pytest.fixture(autouse=True)
def _forget_own_probes(monkeypatch):
    list_probes()  # shipped ones stay
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.fixture
def example(tmp_path):
    file = tmp_path / "growth.py"
    file.write_text(re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1))
    return str(file)


def test_the_worked_example_runs_from_the_command_line(cli, example):
    options = [
        "--data",
        str(SUMS),
        "--reward",
        "exact",
        "--groups",
        "8",
        "--max-prompts",
        "32",
        "--max-new-tokens",
        "4",
    ]
    code, out, _ = cli("probe", str(TINY), *options, "--probe", example, "--json")
    assert code == 0
    table = json.loads(out)
    assert list(table["columns"]) == ["growth"]
    assert len(table["columns"]["growth"]["values"]) == 6
    assert table["not_measured"] == {}


def test_its_numbers_are_those_of_a_plain_pass(example, tiny, rollouts):
    with torch.no_grad(), Measurement(None, tiny, rollouts) as measurement:
        found = get_probe(example).measure(measurement)["growth"]
        norms = np.zeros(tiny.n_layers + 1)
        for batch in measurement.batches:
            hidden = tiny.model.model(**batch.inputs, output_hidden_states=True).hidden_states
            before = [h.norm(dim=-1) for h in hidden[:-1]]  # the last one has gone through the final norm
            norms[:-1] += [float((n * batch.token_mask).sum()) for n in before]
    assert found[:-1] == pytest.approx((norms[1:] / norms[:-1])[:-1], rel=1e-4)


def test_an_own_probe_is_measured_and_shown_beside_the_others(example, tiny, sums, tmp_path):
    get_probe(example)
    assert [p.name for p in list_probes()][-1] == "growth"
    assert "growth" not in list_columns()  # predictors do not know it
    sampling = advisor.SamplingConfig(groups=8, max_prompts=32, max_new_tokens=4)
    rec = advisor.recommend(tiny.model, tiny.tokenizer, sums, sampling=sampling)
    assert rec.verdict.has_ranking
    rec.report(tmp_path)
    assert "growth" in (tmp_path / "report.md").read_text()
    assert "growth" in json.loads((tmp_path / "ranking.json").read_text())["layers"][0]["probes"]
    assert advisor.Recommendation.load(tmp_path).columns["growth"].unit == "ratio"


def test_names_and_columns_of_others_are_kept():
    options = {"cost": "none", "source": "own", "columns": [Column("relative_depth", "1", "a test")]}
    with pytest.raises(UsageError, match="that of a shipped probe"):
        probe("depth", effort="static", **options)(lambda measurement: {})
    with pytest.raises(UsageError, match="Unknown effort 'prob'"):
        probe("own", effort="prob", **options)
    table = LayerTable(2, {"relative_depth": np.arange(2.0)})
    with pytest.raises(ProbeFailure, match="already that of another probe"):
        table.add({"relative_depth": np.ones(2)})


@pytest.mark.parametrize(
    ("text", "told"), [("x = 1", "registers 0 probes"), ("x = ", "SyntaxError"), (None, "does not exist")]
)
def test_a_file_without_a_probe_is_wrong_usage(tmp_path, text, told):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=told):
        get_probe(str(file))


BROKEN = """
from probes.registry import Column, probe

@probe("mine", effort="static", cost="none", source="own", columns=[Column("one", "1", "a test")])
def mine(measurement):
    {body}
"""


def measured(cli, folder, body, name="mine.py"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(BROKEN.format(body=body))
    options = ["--effort", "static", "--probe", str(folder / name), "--output-dir", str(folder / "run"), "--json"]
    code, out, err = cli("probe", str(TINY), *options)
    assert code == 0, err
    return json.loads(out)


def test_an_own_probe_that_breaks_is_a_reason_and_no_end(cli, tmp_path):
    found = measured(cli, tmp_path, "raise ValueError('nothing to see')")
    assert found["not_measured"] == {"mine": "ValueError: nothing to see"}
    found = measured(cli, tmp_path, "return {'oen': [1.0] * 6}")
    assert "['oen'] were returned, ['one'] are declared" in found["not_measured"]["mine"]


def test_a_mended_probe_is_measured_anew_and_files_of_one_name_are_kept_apart(cli, tmp_path):
    assert measured(cli, tmp_path, "return {'one': [1.0] * 6}")["columns"]["one"]["values"] == [1.0] * 6
    assert measured(cli, tmp_path, "return {'one': [7.0] * 6}")["columns"]["one"]["values"] == [7.0] * 6
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(BROKEN.format(body="return {}"))
        assert get_probe(str(tmp_path / folder / "mine.py")).name == "mine"
