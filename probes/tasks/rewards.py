"""Reward functions: the built-in ones, loading a user's, and calling either exactly as TRL 1.16 would.

A reward is called with keywords ``prompts``, ``completions``, ``completion_ids``, every other column of the data
as a list, and ``trainer_state``, ``log_extra``, ``log_metric``; it returns one float or None per completion, and
may be async. Text prompts give text completions, chat prompts a list with one assistant message. None means that a
completion cannot be scored: it takes no part in its group's mean and gets advantage 0, as in TRL.
"""

import asyncio
import inspect
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from probes.errors import RunError, unknown_name
from probes.prompts import is_chat
from probes.tasks.task import Reward, Row
from probes.user_code import import_file

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?|\d[\d,]*(?:\.\d+)?")


def completion_text(completion: str | list[dict]) -> str:
    """The text of a completion in either of TRL's forms."""
    return completion[-1]["content"] if is_chat(completion) else completion


def last_number_text(text: str) -> str | None:
    """The digits of the last number in `text`, as written but without commas, or None."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def last_number(text: str) -> Decimal | None:
    """The last number in `text`, exactly, or None."""
    digits = last_number_text(text)
    return None if digits is None else Decimal(digits)


def exact(completions: list, answer: list, **kwargs) -> list[float]:
    """1 where the stripped completion equals the stripped answer, else 0."""
    pairs = zip(completions, answer, strict=True)
    return [float(completion_text(c).strip() == str(a).strip()) for c, a in pairs]


def number(completions: list, answer: list, **kwargs) -> list[float]:
    """1 where the completion's last number equals the answer's last number, else 0."""
    pairs = zip(completions, answer, strict=True)
    return [
        float((found := last_number(completion_text(c))) is not None and found == last_number(str(a))) for c, a in pairs
    ]


BUILT_IN: dict[str, Reward] = {"exact": exact, "number": number}


def load_reward(spec: str) -> Reward:
    """The reward named by ``exact``, ``number`` or ``FILE.py:function``. Raises `UsageError` with the remedy."""
    if spec in BUILT_IN:
        return BUILT_IN[spec]
    file, colon, function = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise unknown_name("reward", spec, BUILT_IN, "Or give a function in a file, as FILE.py:function.")
    module = import_file(file, "Reward")
    reward = getattr(module, function, None)
    if not callable(reward):
        names = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise unknown_name("reward function", function, names, f"These are the functions in '{file}'.")
    return reward


def score(
    reward: Reward, rows: Sequence[Row], completions: Sequence[str], completion_ids: Sequence[list[int]]
) -> list[float]:
    """Rewards of completions, one row each (B,); NaN where the reward returned None.

    Raises `RunError` where the reward raises, returns the wrong count, or returns what is not a finite number.
    """
    from transformers.trainer_callback import TrainerState

    prompts = [row["prompt"] for row in rows]
    columns = {key for row in rows for key in row} - {"prompt", "completion", "completion_ids"}
    arguments = {key: [row.get(key) for row in rows] for key in sorted(columns)}
    arguments |= {
        "prompts": prompts,
        "completions": [
            [{"role": "assistant", "content": text}] if is_chat(prompt) else text
            for prompt, text in zip(prompts, completions, strict=True)
        ],
        "completion_ids": list(completion_ids),
        "trainer_state": TrainerState(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }
    name = getattr(reward, "__name__", type(reward).__name__)
    try:
        values = _call(reward, arguments)
        values = [] if values is None else list(values)
    except Exception as error:
        raise RunError(
            f"The reward '{name}' raised {type(error).__name__}: {error} (on {len(rows)} completions, the first being "
            f"{completions[0][:60]!r}). Mend it and run the same command again: finished measurements are kept."
        ) from error
    if len(values) != len(rows):
        raise RunError(
            f"The reward '{name}' returned {len(values)} values for {len(rows)} completions: it must return one float "
            "or None per completion."
        )
    return [_as_float(value, name) for value in values]


def _call(reward: Reward, arguments: dict) -> Sequence:
    if inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(getattr(reward, "__call__", None)):  # noqa: B004
        with ThreadPoolExecutor(1) as pool:  # its own thread, since the caller may be inside a running event loop
            return pool.submit(lambda: asyncio.run(reward(**arguments))).result()
    return reward(**arguments)


def _as_float(value: object, name: str) -> float:
    if value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise RunError(f"The reward '{name}' returned {value!r}: each value must be a finite number or None.")
    return number
