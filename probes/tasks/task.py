"""What a policy is to be trained for: prompts, a reward, and which prompts are held out."""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.errors import UsageError

Row = dict[str, Any]
Reward = Callable[..., Any]


@dataclass(frozen=True)
class Task:
    """Rows with a ``prompt`` (text or chat messages) and any columns the reward needs.

    ``reward`` has TRL's signature (see `probes.tasks.rewards`). ``max_reward`` is the best a completion can score,
    or None where that is not known. Training and held-out rows share no prompt.
    """

    name: str
    train: Sequence[Row]
    held_out: Sequence[Row]
    reward: Reward
    reward_name: str = ""
    max_reward: float | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.train:
            raise UsageError(f"The task '{self.name}' has no training prompts: give at least one row to train on.")
        shared = {prompt_key(row["prompt"]) for row in self.train} & {prompt_key(r["prompt"]) for r in self.held_out}
        if shared:
            raise UsageError(
                f"The task '{self.name}' has {len(shared)} prompts both in training and held out. Remove them from one."
            )

    def fingerprint(self) -> str:
        """SHA-256 of the rows, without the reward: keeps results of different data apart."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            digest.update(f"{len(part)}\n".encode())
            for row in part:
                digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return digest.hexdigest()

    def reward_fingerprint(self) -> str:
        """SHA-256 of the reward's source file (or of its name, where it has none)."""
        try:
            source = Path(inspect.getsourcefile(inspect.unwrap(self.reward))).read_bytes()
        except (TypeError, OSError):
            source = b""
        return hashlib.sha256(self.reward_name.encode() + b"\n" + source).hexdigest()


def prompt_key(prompt: Any) -> str:
    """One string per distinct prompt."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)


def split_rows(rows: Sequence[Row], held_out_share: float = 0.2) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows, split by a hash of the prompt.

    Rows with the same prompt stay together, and adding rows moves few of the others. At least one prompt goes to
    each side; raises `UsageError` with fewer than two different prompts.
    """
    keys = sorted({prompt_key(row["prompt"]) for row in rows}, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    if len(keys) < 2:
        raise UsageError("The data has fewer than two different prompts: some must be held out, so give at least two.")
    held = set(keys[: max(1, round(held_out_share * len(keys)))])
    train = [row for row in rows if prompt_key(row["prompt"]) not in held]
    return train, [row for row in rows if prompt_key(row["prompt"]) in held]


def check_prompt(prompt: Any, where: str) -> None:
    """Raise `UsageError` unless the prompt is text or a list of messages with role and content."""
    messages = prompt if isinstance(prompt, list) else [None]
    is_text = isinstance(prompt, str) and prompt
    if is_text or (messages and all(_is_message(m) for m in messages)):
        return
    raise UsageError(
        f'{where}: "prompt" must be text or a list of {{"role": ..., "content": ...}} messages, '
        f"not {str(prompt)[:60]!r}."
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
