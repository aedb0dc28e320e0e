"""Progress on stderr: one line with the stage, a bar and the time left.

Where stderr is no terminal, plain lines that begin with the time since the start.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from advisor.cli.settings import settings
from advisor.forecast import clock
from advisor.processes import is_first
from probes.progress import Progress

_LINE_EVERY, _RARER = 10.0, 0.02  # seconds between lines in a log file, and that share of the time so far


class ShownProgress(Progress):
    """Time left is forecast before the run and corrected by how long finished stages took against their forecast."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.forecast: dict[str, float] = {}
        self.stage, self.total, self.done = "", 1.0, 0.0
        self.finished: set[str] = set()
        self.spent = self.expected = 0.0  # of finished forecast stages
        self.start = self.stage_start = self.last_line = time.monotonic()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(28),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("start", total=1.0, left="")

    def plan(self, seconds: Mapping[str, float]) -> None:
        self.forecast = dict(seconds)
        self._draw()

    def begin(self, stage: str, total: float) -> None:
        self._finish_stage()
        self.stage, self.total, self.done = stage, max(total, 1e-9), 0.0
        self.stage_start = time.monotonic()
        self._draw(force=True)

    def advance(self, amount: float = 1.0) -> None:
        self.done = min(self.total, self.done + amount)
        self._draw()

    def note(self, message: str) -> None:
        when = "" if self.console.is_terminal else f"{clock(time.monotonic() - self.start)} "
        self.console.print(when + message, style="dim", highlight=False, markup=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Forecast of what remains, None before there is a plan."""
        if not self.forecast:
            return None
        stages = list(self.forecast)
        here = stages.index(self.stage) if self.stage in stages else -1
        pace = (self.spent + 1) / (self.expected + 1)
        later = sum(self.forecast[s] for s in stages[here + 1 :] if s not in self.finished) * pace
        return later + self._left_in_stage(pace)

    def _left_in_stage(self, pace: float) -> float:
        share, spent = self.done / self.total, time.monotonic() - self.stage_start
        guess = max(0.0, self.forecast.get(self.stage, 0.0) * pace - spent)
        if share < 0.02:
            return guess
        measured = spent * (1 - share) / share
        return share * measured + (1 - share) * guess if share < 0.2 else measured

    def _finish_stage(self) -> None:
        if self.stage in self.forecast and self.stage not in self.finished:
            self.spent += time.monotonic() - self.stage_start
            self.expected += self.forecast[self.stage]
        self.finished.add(self.stage)

    def _draw(self, force: bool = False) -> None:
        left, share = self.seconds_left(), 0.0
        if self.stage in self.forecast:
            passed = sum(self.forecast[s] for s in self.finished if s in self.forecast)
            passed += self.forecast[self.stage] * self.done / self.total
            share = passed / sum(self.forecast.values())
        elif self.stage:  # a download, say, which the plan does not know
            share = self.done / self.total
            left = (time.monotonic() - self.stage_start) * (1 - share) / share if share > 0.02 else None
        text = f"about {clock(left)} left" if left is not None else ""
        self.bar.update(self.task, description=self.stage or "start", completed=share, left=text)
        if not self.console.is_terminal and self.stage:
            self._line(f"{self.stage}: {share:.0%}{', ' + text if text else ''}", force)

    def _line(self, text: str, force: bool) -> None:
        """A line for a log file: one a stage, and in a long stage ever rarer ones."""
        now = time.monotonic()
        if force or now - self.last_line > max(_LINE_EVERY, _RARER * (now - self.start)):
            self.last_line = now
            self.console.print(f"{clock(now - self.start)} {text}", highlight=False, soft_wrap=True)


@contextmanager
def shown_progress(plan: Mapping[str, float]) -> Iterator[ShownProgress]:
    """A progress line that is gone when the work is done, with a time left before torch is even loaded.

    `plan` is the first forecast of seconds by stage; libraries' own bars and chatter are silenced. Of several processes
    of one run only the first is heard, and none under --quiet.
    """
    console = Console(stderr=True, quiet=settings().quiet or not is_first())
    progress = ShownProgress(console)
    if console.is_terminal:
        progress.bar.start()
    try:
        progress.plan(plan)
        progress.begin("start", 1)
        _silence_libraries()
        yield progress
    finally:
        if console.is_terminal:
            progress.bar.stop()


def _silence_libraries() -> None:
    import os
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", module=r"(transformers|captum|torch)\..*")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
