"""What the benchmarks share: spread of repeats, and running a command with its time and peak memory."""

import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np

from advisor.environment import environment


@dataclass(frozen=True)
class Finished:
    """A command that ended well: wall seconds, peak resident bytes of its process, and what it printed."""

    seconds: float
    peak_bytes: int
    stdout: str


def quiet() -> None:
    """No warnings and no progress of libraries between the figures."""
    from transformers.utils import logging

    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def run_measured(command: list[str], **options) -> Finished:
    """Run a command to its end; ends the benchmark with its stderr if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    stdout, stderr = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{stderr}")
    return Finished(seconds, usage.ru_maxrss * 1024, stdout)


def spread(values) -> dict[str, float]:
    values = np.asarray(values, dtype=float)
    return {"median": float(np.median(values)), "min": float(values.min()), "max": float(values.max())}


def text(values) -> str:
    """Median (min to max)."""
    return "{median:.2f} ({min:.2f} to {max:.2f})".format(**spread(values))


def last_line(name: str, **figures) -> None:
    """The one JSON line that ends every benchmark."""
    print(json.dumps({"benchmark": name, "date": time.strftime("%Y-%m-%d"), **figures, "environment": environment()}))
