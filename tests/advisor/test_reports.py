import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from rich.console import Console

import advisor
from advisor.reports import terminal, wording
from probes.tasks import Task

QUICK = advisor.SamplingConfig(groups=8, max_prompts=32, max_new_tokens=4)


@pytest.fixture(scope="module", params=["ranking", "static", "verdict"])
def rec(request, _tiny, sums):
    if request.param == "static":
        return advisor.recommend(_tiny.model, _tiny.tokenizer, effort="static")
    if request.param == "ranking":
        return advisor.recommend(_tiny.model, _tiny.tokenizer, sums, sampling=QUICK)
    flat = Task(**{**vars(sums), "reward": lambda completions, **kwargs: [0.0] * len(completions)})
    return advisor.recommend(_tiny.model, _tiny.tokenizer, flat, sampling=QUICK)


def printed(rec, width):
    console = Console(width=width, record=True, file=io.StringIO())
    terminal.print_recommendation(rec, console)
    return console.export_text()


class Page(HTMLParser):
    """Collects tags and outside references; every tag that needs closing must be closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.references = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_files(rec, tmp_path):
    rec.report(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ranking.json", "report.html", "report.md"]
    data = json.loads((tmp_path / "ranking.json").read_text())
    laid_down = "schema_version model task protocol effort verdict pick baselines cost layers"
    assert set(laid_down.split()) <= set(data)
    assert [layer["layer"] for layer in data["layers"]] == list(range(6))
    assert {"rank", "contribution", "low", "high", "p_best", "probes"} <= set(data["layers"][0])
    assert (data["predictor"] is not None) == bool(data["pick"])
    if data["pick"]:
        assert {"effort", "decoding", "candidate", "sweeps", "data_sha256", "unlike"} <= set(data["predictor"])


def test_html_is_whole_and_opens_offline(rec, tmp_path):
    rec.report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.references == []
    assert "script" not in page.tags
    assert "url(http" not in text
    expected = len(rec.table.columns) + bool(rec.pick) + bool(rec.reward)
    assert page.tags.count("svg") == expected
    for part in text.split("<svg ")[1:]:
        ElementTree.fromstring("<svg " + part[: part.index("</svg>") + 6])
    assert "#010203" not in text  # placeholders of the colours


def test_every_report_shows_the_expected_contribution_with_its_interval(rec, tmp_path):
    rec.report(tmp_path)
    headline = f"Train layer {rec.pick[0]} of 6" if rec.pick else "No layer can be told from another"
    for text in ((tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text(), printed(rec, 100)):
        assert headline in text
        assert "ncalibrated" not in text
        if rec.pick:
            assert wording.expected(rec.layers[rec.pick[0]]) in text
            assert "P(best)" in text
            assert rec.predicted.by["data_sha256"][:8] in text
        assert "middle layer" in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_terminal_fits_its_width(rec, width):
    lines = printed(rec, width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(re.search(r"…(\s|$)", line) for line in lines if line.strip()[:1].isdigit())  # no cell is cut


def test_share_without_spread_is_always_shown(rec):
    if rec.reward is None:
        assert wording.reward_line(rec) is None
    else:
        assert "without reward spread" in wording.reward_line(rec)


@pytest.mark.parametrize(("value", "shown"), [(0, " " * 4), (1, "█" * 4), (0.5, "██  "), (1 / 32, "▏   "), (2, "████")])
def test_bar(value, shown):
    assert wording.bar(value, 4) == shown


@pytest.mark.parametrize(("values", "shown"), [([0, 1], "▁█"), ([3, 3], "▁▁"), ([0, 0.5, 1], "▁▅█")])
def test_sparkline(values, shown):
    assert wording.sparkline(values) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.12345, "0.123"), (12345.6, "1.23e+04"), (0, "0"), (999.6, "1e+03")]
)
def test_number(value, shown):
    assert wording.number(value) == shown
