"""Verdicts on measured contributions, and the reports that show them, on sweeps with a planted truth."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console
from sweeps import BEST_RATE, TRUTH, Planted, measured

from advisor.contributions import Contributions, roles_of
from advisor.decision import Verdict, judge_base, judge_pick, judge_sweep
from advisor.reports.contributions import headline, html_contributions, markdown_contributions, print_contributions


def found(pick=1, truth=None, broken=(), reference="full", kind="verification", pick_arms=None) -> Contributions:
    """A verification of `pick` on four layers (the middle one is 2), with layers 0 and 3 beside it."""
    sweep = measured(Planted(broken=broken, truth={**TRUTH, **(truth or {})}), rate_by="first_seed")
    arms = [("pick", (pick,)), ("middle", (2,)), *(("also", (k,)) for k in (0, 3))]
    if kind == "sweep":
        arms = [("layer", (k,)) for k in range(4)]
    if reference == "none":
        sweep.arms.remove(None)
    else:
        arms.append(("full", None))
    result = Contributions(
        kind=kind,
        model={"name": "some/model", "n_layers": 4, "layer_parameters": [10] * 4},
        task={"name": "sums", "train_prompts": 300, "validation_prompts": 40, "held_out_prompts": 60, "origin": {}},
        protocol=sweep.protocol.as_dict(),
        reference=reference,
        verdict=Verdict("measured", ""),
        roles=roles_of(arms),
        base=sweep.base,
        sweep=sweep,
        cost={"seconds": 1500.0},
    )
    judge = judge_pick if kind == "verification" else judge_sweep
    return replace(result, verdict=judge(result))


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({}, "confirmed", "The middle layer (2) scores -0.1"),
        ({"pick": 2}, "confirmed", "The pick is the middle layer itself"),
        ({"truth": {(1,): 0.52}}, "no_better_than_middle", "not shown to be better"),
        ({"truth": {(1,): 0.2}}, "not_confirmed", "no gain is shown"),
        ({"truth": {(1,): 0.33}}, "not_confirmed", "less than half"),
        ({"truth": {None: 0.2}}, "no_headroom", "no gain is shown that a layer could have a share of"),
        ({"broken": [(1,)]}, "broke_down", "Every run of the pick broke down"),
        ({"broken": [None]}, "broke_down", "Every run of full-parameter training broke down"),
        ({"broken": [(2,)]}, "confirmed", "Every run of the middle layer broke down"),
        ({"reference": "none"}, "confirmed", "changes the score by +0.4"),
        ({"truth": {(0,): 0.9}}, "confirmed", "layer 0 scored higher"),
    ],
)
def test_the_verdict_on_a_pick(changes, kind, said):
    result = found(**changes)
    assert result.verdict.kind == kind, result.verdict.text
    assert said in result.verdict.text
    assert result.proven == (kind == "confirmed")


def test_the_verdict_on_a_sweep():
    assert found(kind="sweep").verdict.kind == "measured"
    assert "between seeds: 1.00" in found(kind="sweep").verdict.text
    assert found(kind="sweep", truth={None: 0.2}).verdict.kind == "no_headroom"


@pytest.mark.parametrize(
    ("scores", "kind"), [([1.0] * 9 + [None], "no_headroom"), ([0.5], None), ([None], "constant_reward")]
)
def test_the_verdict_on_the_base(scores, kind):
    verdict = judge_base(scores, "greedy", 1.0)
    assert (verdict and verdict.kind) == kind
    assert judge_base([1.0], "greedy", None) is None


def test_the_json_says_everything():
    result = found()
    content = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert set(content) >= {"schema_version", "model", "task", "protocol", "verdict", "greedy", "sampled", "runs"}
    for layer in content["greedy"]["layers"]:
        assert layer["low"] <= layer["contribution"] <= layer["high"]
        assert layer["learning_rate"] == BEST_RATE[layer["layer"],]
        assert layer["seeds"] == [0, 1, 2]
    assert content["greedy"]["full"]["score"] == pytest.approx(0.71, abs=0.02)
    assert content["greedy"]["seed_agreement"] == pytest.approx(1.0)
    assert len(content["runs"]) == 25
    assert "held_out" not in content["runs"][0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_table_fits(width, capsys):
    print_contributions(found(), Console(width=width, force_terminal=False))
    out = capsys.readouterr().out
    assert "Confirmed: train layer 1." in out
    assert "layer 1 (pick)" in out or width < 80
    assert all(len(line) <= width for line in out.splitlines())
    assert ("peak GiB" in out) == (width >= 110)


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "path", "use", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize(
    "changes", [{}, {"kind": "sweep"}, {"broken": [(1,)]}, {"broken": [None]}, {"reference": "none"}]
)
def test_reports_say_the_same(changes):
    result = found(**changes)
    markdown, page = markdown_contributions(result), html_contributions(result)
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    text = " ".join("".join(parser.text).split())
    for said in (headline(result), result.verdict.text):
        assert said in markdown
        assert said in text
    assert 'aria-label="Learning curves"' in page
    assert 'aria-label="Gain of every trained layer"' in page
    assert not any(loading in page for loading in ("<script", "<link", "src="))


def test_a_verdict_before_training_has_a_report_too():
    early = replace(found(), sweep=None, verdict=Verdict("no_headroom", "Nothing to gain."))
    assert "No headroom" in markdown_contributions(early)
    assert "Nothing to gain." in html_contributions(early)
    assert early.as_dict()["runs"] == []
    assert not early.proven
