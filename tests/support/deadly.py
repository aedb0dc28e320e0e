"""A reward file for tests that kill processes: exact match, a log of its calls, and one kill -9 at a given call."""

from pathlib import Path

SOURCE = """
import os, signal
from pathlib import Path

HERE = Path(__file__).parent

def reward(completions, answer, **kwargs):
    with (HERE / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\\n")
    mine = (HERE / "calls").read_text().split().count(str(os.getpid()))
    if mine == AT_CALL:
        try:
            os.close(os.open(HERE / "killed", os.O_CREAT | os.O_EXCL))
            os.kill(VICTIM, signal.SIGKILL)
        except FileExistsError:
            pass
    return [float(c.strip() == a) for c, a in zip(completions, answer)]
"""


def write_reward(folder: Path, at_call: int, victim: str = "os.getpid()") -> str:
    """Write it into `folder` and return its name; the first process at its call number `at_call` kills `victim`."""
    file = folder / "deadly_reward.py"
    file.write_text(SOURCE.replace("AT_CALL", str(at_call)).replace("VICTIM", victim))
    return f"{file}:reward"


def n_calls(folder: Path) -> int:
    """How often the reward was called, by any process."""
    return len((folder / "calls").read_text().split())
