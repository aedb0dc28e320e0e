import io

import pytest
from rich.console import Console

from advisor.cli import progress as module
from advisor.cli.progress import ShownProgress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def shown(clock):
    return ShownProgress(Console(file=io.StringIO(), width=100))


def text(shown):
    return shown.console.file.getvalue()


def test_time_left_is_known_before_anything_is_done(shown):
    assert shown.seconds_left() is None
    shown.plan({"a": 10, "b": 30})
    assert shown.seconds_left() == 40
    shown.begin("a", 4)
    assert "a: 0%, about 0:40 left" in text(shown)


def test_a_slow_stage_corrects_those_to_come(shown, clock):
    shown.plan({"a": 10, "b": 30})
    shown.begin("a", 4)
    clock.now = 10.0
    shown.advance(2)  # half done in the time forecast for all
    assert shown.seconds_left() == pytest.approx(10 + 30)
    clock.now = 20.0
    shown.advance(2)
    shown.begin("b", 1)
    assert shown.seconds_left() == pytest.approx(30 * 21 / 11)  # twice as slow, less one second's doubt


def test_skipped_stages_do_not_count(shown):
    shown.plan({"a": 10, "b": 30, "c": 5})
    shown.begin("c", 1)
    assert shown.seconds_left() == pytest.approx(5)


def test_a_download_outside_the_plan_has_its_own_time(shown, clock):
    shown.begin("fetch", 100)
    assert text(shown) == "0:00 fetch: 0%\n"
    clock.now = 20.0
    shown.advance(25)
    assert "fetch: 25%, about 1:00 left" in text(shown)


def test_a_log_file_gets_a_line_every_ten_seconds_at_most(shown, clock):
    shown.plan({"a": 100})
    shown.begin("a", 100)
    for second in range(1, 31):
        clock.now = float(second)
        shown.advance()
    assert len(text(shown).splitlines()) == 3
    shown.note("completions get up to 22 tokens")
    assert text(shown).endswith("0:30 completions get up to 22 tokens\n")


def test_lines_of_a_long_stage_grow_rarer(shown, clock):
    shown.plan({"a": 7200})
    shown.begin("a", 7200)
    for second in range(0, 7200, 5):
        clock.now = float(second)
        shown.advance(5)
    lines = text(shown).splitlines()
    assert len(lines) < 200
    assert lines[-1].startswith("1:5")
