"""Built-in tasks with answers that can be checked: small sums, differences and comparisons.

They need no download and small instruction-tuned models solve them in part, which is what reinforcement learning
needs. Every pair of numbers occurs once, either in training or held out.
"""

import random
from collections.abc import Callable

from probes.tasks.rewards import number
from probes.tasks.task import Row, Task

_QUESTIONS: dict[str, tuple[str, Callable[[int, int], int], int]] = {
    # name: question, answer, largest number
    "addition": ("What is {a} + {b}? Reply with the number only.", lambda a, b: a + b, 20),
    "subtraction": ("What is {a} - {b}? Reply with the number only.", lambda a, b: a - b, 20),
    "larger": ("Which number is larger, {a} or {b}? Reply with the number only.", max, 99),
}
DESCRIPTIONS = {
    "addition": "sums of two numbers from 0 to 20; reward: the last number is the answer",
    "subtraction": "differences of two numbers from 0 to 20, never negative; reward: the last number is the answer",
    "larger": "the larger of two different numbers from 0 to 99; reward: the last number is the answer",
}
_HELD_OUT_SHARE = 0.25
_MOST_PAIRS = 2048


def arithmetic_task(name: str, seed: int = 0) -> Task:
    """One of the built-in tasks, by a name in `DESCRIPTIONS`; `seed` shuffles and splits the pairs."""
    question, answer, largest = _QUESTIONS[name]
    pairs = [(a, b) for a in range(largest + 1) for b in range(largest + 1)]
    if name == "subtraction":
        pairs = [(a, b) for a, b in pairs if a >= b]
    if name == "larger":
        pairs = [(a, b) for a, b in pairs if a != b]
    random.Random(seed).shuffle(pairs)
    rows: list[Row] = [
        {"prompt": question.format(a=a, b=b), "answer": str(answer(a, b))} for a, b in pairs[:_MOST_PAIRS]
    ]
    held = round(_HELD_OUT_SHARE * len(rows))
    return Task(name, rows[held:], rows[:held], number, "number", 1.0, origin={"task": name, "seed": seed})
