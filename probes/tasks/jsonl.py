"""Tasks from a JSONL file: one object a line with ``prompt``, usually ``answer``, and any other columns."""

import json
from pathlib import Path

from probes.errors import UsageError
from probes.tasks.rewards import BUILT_IN, load_reward
from probes.tasks.task import Reward, Row, Task, check_prompt, split_rows


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a JSONL file; blank lines are skipped. Raises `UsageError` with the number of a bad line."""
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The data file '{path}' cannot be read: {error}. Give a UTF-8 JSONL file.") from error
    rows = []
    for i, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(
                f"{path}, line {i}: not JSON ({error.msg}, column {error.colno}). Write one JSON object a line."
            ) from error
        if not isinstance(row, dict):
            raise UsageError(f'{path}, line {i}: a {type(row).__name__}, not an object with a "prompt".')
        if "prompt" not in row:
            raise UsageError(f'{path}, line {i}: the column "prompt" is missing; this line has: {", ".join(row)}.')
        check_prompt(row["prompt"], f"{path}, line {i}")
        rows.append(row)
    if not rows:
        raise UsageError(f"The data file '{path}' has no rows: write one JSON object with a \"prompt\" a line.")
    return rows


def jsonl_task(path: str | Path, reward: str | Reward = "number") -> Task:
    """The task of a JSONL file. `reward` is ``exact``, ``number``, ``FILE.py:function`` or a callable."""
    rows = read_rows(path)
    function = load_reward(reward) if isinstance(reward, str) else reward
    built_in = function in BUILT_IN.values()
    if built_in:
        for i, row in enumerate(rows, start=1):
            if row.get("answer") is None:
                raise UsageError(
                    f"{path}, row {i}: the reward '{function.__name__}' compares with the column \"answer\", which is "
                    f"missing; this row has: {', '.join(row)}. Add it, or give --reward FILE.py:function."
                )
    train, held_out = split_rows(rows)
    name = reward if isinstance(reward, str) else getattr(reward, "__name__", "reward")
    origin = {"data": str(Path(path).expanduser().resolve()), "reward": _absolute(reward)}
    return Task(
        Path(path).stem,
        train,
        held_out,
        function,
        name,
        1.0 if built_in else None,
        origin=origin if isinstance(reward, str) else {"reward": name},
    )


def _absolute(reward: str | Reward) -> str | Reward:
    """FILE.py:function with the file's whole path, so that it is found from any folder."""
    if not isinstance(reward, str) or reward in BUILT_IN:
        return reward
    file, _, function = reward.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{function}"
