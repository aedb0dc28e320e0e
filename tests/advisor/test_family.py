"""Family reports and pages made again: figures, files, and what is said where something is missing."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policies import SUMS, TINY
from profiles import peaked, profile
from rich.console import Console

from advisor.contributions import Contributions
from advisor.family import FamilyReport, family_report, read_folder
from advisor.reports import family as words
from advisor.reports.family_html import html_family
from advisor.reports.family_plots import heat_map
from advisor.reports.family_text import heat_lines, markdown_family, print_family
from calibration.families import Family
from probes.errors import UsageError

DATA = ["--data", str(SUMS), "--reward", "exact", "--max-new-tokens", "4"]
TRAINING = ["--steps", "2", "--prompts-per-step", "4", "--group-size", "4", "--learning-rates", "1e-3", "--seeds", "1"]
TRAINING += ["--held-out", "40", "--validation", "20", "--interval-width", "1", "--sampled-completions", "1"]


@pytest.fixture(scope="module")
def published() -> FamilyReport:
    return family_report(families=["published"], advise=("Qwen3-32B", 64))


@pytest.fixture(scope="module")
def planted() -> FamilyReport:
    """Five policies of other lengths on two tasks, one of them collapsed somewhere, and a ranking that is predicted."""
    rng = np.random.default_rng(0)
    found = [peaked(f"m{i}", n, 0.7, rng, task=t) for i, n in enumerate((6, 8, 12, 9, 40)) for t in ("a", "<b>")]
    found[0] = replace(found[0], values={**found[0].values, 0: -3.0}, ends={1: (0.1, 0.4)})
    guess = replace(peaked("guess", 10, 0.5, rng), predicted=True)
    return FamilyReport("planted", Family(found, "greedy"), [guess], {"x on y": "it gains nothing"})


def sweep_file(folder: Path, name="org/some-model", gain=(0.4, 0.3), kind="sweep", full=True, **under) -> Path:
    """A result file as `advisor sweep` writes it, of as much as a family report reads."""
    layers = [
        {"layer": k, "contribution": c, "low": c - 0.1, "high": c + 0.1} for k, c in enumerate([0.2, 0.5, 0.9, 0.4])
    ]
    scores = {"layers": layers, "full": {"gain": gain[0], "gain_low": gain[1]} if full else None}
    found = {
        "schema_version": 1,
        "kind": kind,
        "model": {"name": name, "n_layers": 4, "class": "LlamaForCausalLM"},
        "task": {"name": "sums"},
        "protocol": {"steps": 30, "seeds": [0, 1], "decoding": "greedy"},
        "verdict": {"kind": "measured", "text": ""},
        "greedy": {**scores, "seed_agreement": 0.7, **under},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps(found))
    return folder


def sections_without_table(html: str) -> list[str]:
    """Headings of the sections that have a plot and no table."""
    return [part[:60] for part in html.split("<h2")[1:] if "<svg" in part and "<table" not in part]


@pytest.mark.parametrize("which", ["published", "planted"])
def test_files(which, request, tmp_path):
    report = request.getfixturevalue(which)
    report.report(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["family.json", "report.html", "report.md"]
    found = json.loads((tmp_path / "family.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert found["schema_version"] == 1
    assert [p["name"] for p in found["profiles"]] == [p.name for p in report.profiles]
    assert found["verdict"]["kind"] == report.family.verdict.kind
    for text in ((tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()):
        assert words.headline(report) in text
        assert text.count("nan") == 0


def test_published_figures(published):
    """Numbers that can be read off the published tables."""
    found = published.as_dict()
    assert found["published_correlations"]["two_math_sets"] == 0.76
    assert len(found["benchmarks"]) == 6
    whole = next(p for p in found["profiles"] if p["whole"])
    assert (whole["best"], len(whole["layers"]), whole["layers"][10]["contribution"]) == (10, 28, 1.14)
    assert found["zone"]["left_out"]["low"] > 0  # the middle third is best in all seven
    assert 0.3 < found["zone"]["start"] < 0.4
    assert found["advice"]["n_layers"] == 64
    assert "28 to 36 layers, this one has 64" in words.advice_line(published)


def test_the_page_is_whole_and_opens_offline(planted):
    text = html_family(planted)
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    assert sections_without_table(text) == []
    assert text.count("<details") == text.count("</details>")
    assert "&lt;b&gt;" in text
    assert "on <b>" not in text  # the task's name is no markup
    assert "predicted, not measured" in text
    assert "#010203" not in text


def test_the_heat_map_can_be_read_without_colour(planted):
    svg = heat_map(planted, words.letters(planted))
    cells = sum(len(p.values) for p in [*planted.profiles, *planted.predicted])
    assert len(re.findall(r"<title>layer \d+: C ", svg)) == cells
    numbers = re.findall(r">★?-?\d?\.\d\d</text>", svg)
    assert len(numbers) == cells + 2  # every cell bears its number, and the legend 0.25 and 0.75
    assert svg.count('fill="none" stroke="var(--ink)" stroke-width="2"/>') == len(planted.profiles) + 2  # best, legend


def test_layers_that_were_not_measured_are_hatched(published):
    svg = heat_map(published, words.letters(published))
    missing = sum(p.n_layers - len(p.values) for p in published.profiles)
    assert len(re.findall(r"not measured</title>", svg)) == missing > 0


def test_text_fits_80_columns(planted):
    console = Console(width=80, record=True, file=io.StringIO())
    print_family(planted, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in heat_lines(planted) if "★" in line][:-1]
    assert len(rows) == len(planted.profiles) + 1
    assert "the middle layer" in text


def test_predicted_rankings_are_shown_and_not_compared(planted):
    found = planted.as_dict()
    assert [p["model"] for p in found["predicted"]] == ["guess"]
    assert all("guess" not in (pair["a"] + pair["b"]) for pair in found["pairs"])
    assert "guess" not in found["members"]
    assert "| predicted, not measured |" in markdown_family(planted)


def test_what_is_claimed_is_what_the_intervals_show(planted):
    found = words.claims(planted)
    shown = next(c for c in found if c.text.startswith("The order of layers (another policy"))
    assert shown.kind == "shown"
    few = FamilyReport("two", Family([profile("a", [1, 2, 3, 4, 5]), profile("b", [5, 4, 3, 2, 1])], "greedy"), [], {})
    assert {c.kind for c in words.claims(few)} == {"unknown"}
    assert words.headline(few) == "Too few policies to say what transfers."
    assert "no interval below three policies" in words.zone_line(few)


def test_folders_of_runs(tmp_path):
    sweep_file(tmp_path / "one")
    sweep_file(tmp_path / "two", name="org/other")
    sweep_file(tmp_path / "rec" / "verification-1", kind="verification", name="org/third")
    (tmp_path / "rec" / "ranking.json").write_text(
        json.dumps(
            {
                "model": {"name": "org/third", "n_layers": 4},
                "task": None,
                "protocol": {"decoding": "greedy"},
                "predictor": {"effort": "static"},
                "layers": [{"layer": k, "contribution": 0.5, "low": 0.1, "high": 0.9} for k in range(4)],
            }
        )
    )
    report = family_report([tmp_path / name for name in ("one", "two", "rec")])
    assert [p.model for p in report.profiles] == ["some-model", "other", "third"]
    assert report.family.members == ["org/some-model", "org/other", "org/third"]
    assert [(p.model, p.task) for p in report.predicted] == [("third", "no task")]
    first = report.profiles[0]
    assert (first.family, first.seeds, first.seed_agreement) == ("llama", 2, 0.7)
    assert first.values == {0: 0.2, 1: 0.5, 2: 0.9, 3: 0.4}
    assert first.ends[2] == pytest.approx((0.8, 1.0))
    assert report.family.related[0].spearman.value == pytest.approx(1)


def test_two_sweeps_of_one_model_are_told_apart_and_count_as_one_policy(tmp_path):
    report = family_report([sweep_file(tmp_path / "one"), sweep_file(tmp_path / "two")])
    assert [p.model for p in report.profiles] == ["some-model (one)", "some-model (two)"]
    assert report.family.members == ["org/some-model"]
    assert report.family.related[0].relation == "repeat"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gain": (0.4, 0.1)}, "not known well enough"),
        ({"full": False}, "no full-parameter training"),
        ({"layers": [{"layer": [0, 1], "contribution": 0.5, "low": 0.4, "high": 0.6}]}, "no single layer"),
    ],
)
def test_sweeps_without_a_profile_say_why(tmp_path, changes, why):
    profiles, left_out = read_folder(sweep_file(tmp_path / "one", **changes), "greedy")
    assert profiles == []
    assert why in left_out[str(tmp_path / "one")]
    with pytest.raises(UsageError, match=why):
        family_report([tmp_path / "one"])


def test_wrong_usage_says_what_to_give(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    sweep_file(tmp_path / "runs" / "one")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "sweep.json").write_text("{")
    cases = {
        (): "Say what to report on",
        ("--family", "lama"): "Unknown family 'lama'. Did you mean 'llama'",
        ("--published", "--decoding", "gredy"): "Did you mean 'greedy'",
        ("--published", "--decoding", "sampled"): "Nothing was measured here under sampled",
        (str(tmp_path / "none"),): "is not a folder",
        (str(tmp_path / "empty"),): "it has: nothing",
        (str(tmp_path / "other"),): "it has: notes.txt",
        (str(tmp_path / "runs"),): f"these do: give {tmp_path / 'runs' / 'one'}",
        (str(tmp_path / "damaged"), "--published"): "not a result that this program reads",
        (str(tmp_path / "runs" / "one"), "--n-layers", "4"): "ask a family",
        (str(tmp_path / "runs" / "one"),): "cannot be read back|can be read back",
        ("--published", "--n-layers", "0"): "0 layers",
        ("--published", "--n-layers", "4", "--for", str(TINY)): "leave out --n-layers",
    }
    for arguments, said in cases.items():
        code, out, err = cli("report", *arguments)
        assert code == 2, (arguments, err)
        assert re.search(said, err), (arguments, err)
        assert out == ""


def test_the_command_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("report", "--published", "--for", str(TINY), "--json")
    assert code == 0
    found = json.loads(out)
    assert found["advice"]["model"] == TINY.name
    assert found["advice"]["n_layers"] == 6
    assert json.loads((tmp_path / "advisor-reports" / "published-greedy" / "family.json").read_text()) == found
    assert "report.html" in err
    code, out, _ = cli("report", "--published", "--output-dir", "here", "--quiet")
    assert code == 0
    assert "Best zone: relative depth 0.33 to 0.67" in out
    assert sorted(p.name for p in Path("here").iterdir()) == ["family.json", "report.html", "report.md"]


@pytest.mark.parametrize("verb", ["recommend", "sweep", "verify"])
def test_one_policy_has_its_page_made_again(cli, tmp_path, verb):
    """The files are those that the run itself wrote, to the byte."""
    folder, again = tmp_path / "run", tmp_path / "again"
    options = {
        "recommend": ["--groups", "8", "--max-prompts", "32"],
        "sweep": ["--layers", "1,4", *TRAINING],
        "verify": ["--layer", "4", "--reference", "none", *TRAINING],
    }[verb]
    cli(verb, str(TINY), *DATA, *options, "--output-dir", str(folder))
    result = {"recommend": "ranking", "verify": "verification"}.get(verb, verb)
    names = (f"{result}.json", "report.md", "report.html")
    before = {name: (folder / name).read_bytes() for name in names}
    assert sections_without_table(before["report.html"].decode()) == []
    code, out, err = cli("report", str(folder), "--output-dir", str(again))
    assert code == 0, err
    assert out
    assert {name: (again / name).read_bytes() for name in names} == before
    (folder / "report.html").unlink()
    cli("report", str(folder))
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_a_sweep_without_its_journal_cannot_be_read_back(tmp_path):
    with pytest.raises(UsageError, match="give the whole output folder"):
        Contributions.load(sweep_file(tmp_path / "one"))
