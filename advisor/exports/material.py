"""What a trainer needs beside the layers: the model's name, the training prompts as a file, the reward as a module."""

import inspect
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes import packaged
from probes.errors import UsageError
from probes.policy import find_files
from probes.progress import Progress
from probes.prompts import is_chat
from probes.tasks import reload_task, rewards
from probes.tasks.task import Row

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation

RATE = 1e-4  # the middle of the rates that `advisor verify` tries
STEPS, PROMPTS_PER_STEP = 30, 16  # of `advisor verify`


@dataclass(frozen=True)
class Material:
    """``model`` is what the trainer loads. ``rows`` and ``held_out`` are the task's prompts, None at effort static or
    where left out; nested columns are JSON text there, which ``reward`` (a module's source, with a function of that
    name in TRL's signature) reads back; ``own_reward`` is the source of the user's file, which it imports."""

    model: str
    rows: list[Row] | None
    held_out: list[Row] | None
    reward: str | None
    task: str
    own_reward: str | None = None
    group_size: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 256
    rate: float = RATE
    steps: int = STEPS
    prompts_per_step: int = PROMPTS_PER_STEP
    notes: list[str] = field(default_factory=list)

    @property
    def reward_files(self) -> dict[str, str]:
        """The reward as files beside each other."""
        own = {} if self.own_reward is None else {"own_reward.py": self.own_reward}
        return {"reward.py": self.reward, **own}

    @property
    def episodes(self) -> int:
        """Passes over the prompts that make up the steps."""
        return max(1, math.ceil(self.steps * self.prompts_per_step / len(self.rows))) if self.rows else 1

    @classmethod
    def of(cls, rec: "Recommendation", with_data: bool = True, trust_remote_code: bool = False) -> "Material":
        """Of a recommendation. Raises `UsageError` where its task cannot be made again, with the data moved, say."""
        name, notes = _model_name(rec.model["name"])
        told = {k: rec.protocol[k] for k in ("group_size", "temperature", "max_new_tokens") if rec.protocol.get(k)}
        warmup = rec.protocol.get("warmup") or {}
        told |= {"prompts_per_step": warmup["prompts_per_step"]} if warmup else {}
        raced = rec.layers[rec.pick[0]]["warmup"] if rec.pick else None
        told |= {"rate": raced["rate"]} if raced else {}
        if rec.task is None or not with_data:
            notes.append("No data and reward are filled in: put yours where the files say so.")
            return cls(name, None, None, None, "", notes=notes, **told)
        try:
            task = reload_task(rec.task["origin"])
        except UsageError as error:
            raise UsageError(f"{error} Or export without prompts and reward: --no-data.") from error
        as_chat = _shown_as_chat(rec, trust_remote_code)
        parts = (task.train, task.held_out)
        columns = sorted({k for part in parts for row in part for k in row if k != "prompt"})
        nested = [k for k in columns if any(_is_nested(row.get(k)) for part in parts for row in part)]
        reward, own, note = _reward_module(rec.task["origin"], nested, is_chat(task.train[0]["prompt"]))
        notes += [note] if note else []
        rows, held_out = ([_plain(row, columns, nested, as_chat) for row in part] for part in parts)
        return cls(name, rows, held_out, reward, task.name, own, notes=notes, **told)


def jsonl(rows: Sequence[Row]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_messages(prompt: Any) -> list[dict]:
    """A prompt as chat messages."""
    return prompt if is_chat(prompt) else [{"role": "user", "content": prompt}]


def as_text(prompt: Any) -> str:
    """A prompt as the text that a policy without chat template sees."""
    return "\n".join(message["content"] for message in prompt) if is_chat(prompt) else prompt


def _model_name(name: str) -> tuple[str, list[str]]:
    path = Path(name).expanduser()
    if name == packaged.NAME:
        return str(find_files(name, Progress()).path), []
    if path.is_file():
        note = (
            f"Trainers do not read GGUF: save it first with probes.policy.load_policy({name!r}), .model and .tokenizer "
            "save_pretrained, and put that folder's name in place of the file's."
        )
        return str(path.resolve()), [note]
    return (str(path.resolve()) if path.is_dir() else name), []


def _shown_as_chat(rec: "Recommendation", trust_remote_code: bool) -> bool:
    """Whether the policy saw text prompts as user messages, through its tokenizer's chat template."""
    style = rec.protocol["prompt_style"]
    if style != "auto":
        return style == "chat"
    from transformers import AutoTokenizer

    files = find_files(rec.model["name"], Progress(), trust_remote_code, weights=rec.model["name"] == packaged.NAME)
    where = (files.path.parent, {"gguf_file": files.path.name}) if files.is_gguf else (files.path, {})
    return bool(AutoTokenizer.from_pretrained(where[0], trust_remote_code=trust_remote_code, **where[1]).chat_template)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _plain(row: Row, columns: Sequence[str], nested: Sequence[str], as_chat: bool) -> Row:
    """The row with every column, None where it has none, as the reward receives it from a file."""
    prompt = as_messages(row["prompt"]) if as_chat else as_text(row["prompt"])
    return {"prompt": prompt} | {
        k: json.dumps(row.get(k), ensure_ascii=False) if k in nested else row.get(k) for k in columns
    }


def _reward_module(origin: dict[str, Any], nested: list[str], takes_chat: bool) -> tuple[str, str | None, str | None]:
    """Source of a module with ``reward``, that of the user's own file, and what they need beside Python."""
    name, own, note = origin.get("reward") or "number", None, None
    if (origin.get("task") or "").startswith("reasoning-gym:"):
        score = f"from probes.tasks import reload_task\n\nscore = reload_task({origin!r}).reward\n"
        note = "reward.py needs layer-advisor[tasks] where the training runs."
    elif name in rewards.BUILT_IN:
        parts: list[Callable] = [is_chat, rewards.completion_text, rewards.last_number_text, rewards.last_number]
        source = "\n\n".join(inspect.getsource(part) for part in [*parts, rewards.BUILT_IN[name]])
        score = f"_NUMBER = re.compile({rewards._NUMBER.pattern!r})\n\n\n{source}\n\nscore = {name}\n"
    else:
        file, _, function = name.rpartition(":")
        own = Path(file).expanduser().read_text(encoding="utf-8")
        score = (
            "sys.path.insert(0, str(Path(__file__).parent))\n"
            f"from own_reward import {function} as score  # noqa: E402\n"
        )
        note = "own_reward.py is a copy of your reward's file: what it imports beside it, put there too."
    return _REWARD.format(score=score.rstrip(), nested=tuple(nested), takes_chat=takes_chat), own, note


_REWARD = '''"""The reward as the layers were judged by it: `reward` has the signature of TRL's reward functions."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
from decimal import Decimal
from pathlib import Path

{score}

NESTED = {nested!r}  # columns that are JSON text in train.jsonl
TAKES_CHAT = {takes_chat}  # whether `score` expects chat messages rather than text


def reward(prompts, completions, **columns):
    """One float or None a completion; prompts and completions as text or as chat messages."""
    for name in NESTED:
        if name in columns:
            columns[name] = [json.loads(value) for value in columns[name]]
    prompts = [_as_taken(prompt, "user") for prompt in prompts]
    completions = [_as_taken(completion, "assistant") for completion in completions]
    found = score(prompts=prompts, completions=completions, **columns)
    return asyncio.run(found) if inspect.isawaitable(found) else found


def _as_taken(text, role):
    if TAKES_CHAT:
        return [{{"role": role, "content": text}}] if isinstance(text, str) else text
    return text if isinstance(text, str) else text[-1]["content"]
'''
