"""The verifiable tasks that the zoo is pre-trained on: short questions with one right answer each."""

import hashlib
import random
from collections.abc import Callable

Question = tuple[str, str]  # prompt, answer


def _add(rng: random.Random) -> Question:
    a, b = rng.randrange(100), rng.randrange(100)
    return f"{a}+{b}=", str(a + b)


def _subtract(rng: random.Random) -> Question:
    a, b = rng.randrange(100), rng.randrange(100)
    return f"{a}-{b}=", str(a - b)


def _multiply(rng: random.Random) -> Question:
    a, b = rng.randrange(1000), rng.randrange(10)
    return f"{a}*{b}=", str(a * b)


def _larger(rng: random.Random) -> Question:
    a, b = rng.randrange(1000), rng.randrange(1000)
    return f"max {a} {b}=", str(max(a, b))


def _sort(rng: random.Random) -> Question:
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(3, 6)))
    return f"sort {digits}=", "".join(sorted(digits))


def _reverse(rng: random.Random) -> Question:
    word = _word(rng, 3, 7)
    return f"rev {word}=", word[::-1]


def _count(rng: random.Random) -> Question:
    letter, word = rng.choice("abc"), "".join(rng.choice("abc") for _ in range(rng.randint(4, 10)))
    return f"count {letter} in {word}=", str(word.count(letter))


def _shift(rng: random.Random) -> Question:
    word = _word(rng, 2, 5)
    return f"next {word}=", "".join(chr((ord(c) - 96) % 26 + 97) for c in word)


def _modulo(rng: random.Random) -> Question:
    a, b = rng.randrange(1000), rng.randrange(2, 20)
    return f"{a}%{b}=", str(a % b)


def _word(rng: random.Random, shortest: int, longest: int) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(shortest, longest)))


SKILLS: dict[str, Callable[[random.Random], Question]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "larger": _larger,
    "sort": _sort,
    "reverse": _reverse,
    "count": _count,
    "shift": _shift,
    "modulo": _modulo,
}
_RL_SHARE = 0.4
_RL_ROWS = 3000


def is_for_rl(prompt: str) -> bool:
    """Whether a prompt is kept from pre-training, so that RL and its held-out prompts are new to the policy."""
    return hashlib.sha256(prompt.encode()).digest()[0] < 256 * _RL_SHARE


def rl_rows(skill: str) -> list[dict[str, str]]:
    """The prompts of a skill for RL, with answers: the same for every policy, in none's pre-training."""
    rows = draw(skill, _RL_ROWS, random.Random(f"rl {skill}"), for_rl=True)
    return [{"prompt": prompt, "answer": answer} for prompt, answer in rows]


def draw(skill: str, n: int, rng: random.Random, *, for_rl: bool) -> list[Question]:
    """`n` questions of a skill on one side of the split; repeats are possible in pre-training, never for RL."""
    found: list[Question] = []
    seen: set[str] = set()
    tries = 0
    while len(found) < n and tries < 50 * n:
        tries += 1
        question = SKILLS[skill](rng)
        if is_for_rl(question[0]) == for_rl and question[0] not in seen:
            found.append(question)
            if for_rl:
                seen.add(question[0])
    return found
