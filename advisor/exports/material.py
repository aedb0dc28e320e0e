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
    name in TRL's signature) reads back."""

    model: str
    rows: list[Row] | None
    held_out: list[Row] | None
    reward: str | None
    task: str
    group_size: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 256
    rate: float = RATE
    steps: int = STEPS
    prompts_per_step: int = PROMPTS_PER_STEP
    notes: list[str] = field(default_factory=list)

    @property
    def episodes(self) -> int:
        """Passes over the prompts that make up the steps."""
        return max(1, math.ceil(self.steps * self.prompts_per_step / len(self.rows))) if self.rows else 1

    @classmethod
    def of(cls, rec: "Recommendation", with_data: bool = True) -> "Material":
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
        as_chat = _shown_as_chat(rec)
        nested = sorted({k for row in task.train for k, v in row.items() if k != "prompt" and _is_nested(v)})
        reward, note = _reward_module(rec.task["origin"], nested, is_chat(task.train[0]["prompt"]))
        notes += [note] if note else []
        rows, held_out = ([_plain(row, nested, as_chat) for row in part] for part in (task.train, task.held_out))
        return cls(name, rows, held_out, reward, task.name, notes=notes, **told)


def jsonl(rows: Sequence[Row]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_messages(prompt: Any) -> list[dict]:
    """A prompt as chat messages."""
    return prompt if is_chat(prompt) else [{"role": "user", "content": prompt}]


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


def _shown_as_chat(rec: "Recommendation") -> bool:
    """Whether the policy saw text prompts as user messages, through its tokenizer's chat template."""
    style = rec.protocol["prompt_style"]
    if style != "auto":
        return style == "chat"
    from transformers import AutoTokenizer

    files = find_files(rec.model["name"], Progress())
    where = (files.path.parent, {"gguf_file": files.path.name}) if files.is_gguf else (files.path, {})
    return bool(AutoTokenizer.from_pretrained(where[0], **where[1]).chat_template)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _as_text(prompt: Any) -> str:
    return "\n".join(message["content"] for message in prompt) if is_chat(prompt) else prompt


def _plain(row: Row, nested: Sequence[str], as_chat: bool) -> Row:
    prompt = as_messages(row["prompt"]) if as_chat else _as_text(row["prompt"])
    return {"prompt": prompt} | {
        k: json.dumps(v, ensure_ascii=False) if k in nested else v for k, v in row.items() if k != "prompt"
    }


def _reward_module(origin: dict[str, Any], nested: list[str], takes_chat: bool) -> tuple[str, str | None]:
    """Source of a module with ``reward``, and what it needs beside Python."""
    name, note = origin.get("reward") or "number", None
    if (origin.get("task") or "").startswith("reasoning-gym:"):
        score = f"from probes.tasks import reload_task\n\nscore = reload_task({origin!r}).reward\n"
        note = "reward.py needs layer-advisor[tasks] where the training runs."
    elif name in rewards.BUILT_IN:
        parts: list[Callable] = [is_chat, rewards.completion_text, rewards.last_number_text, rewards.last_number]
        source = "\n\n".join(inspect.getsource(part) for part in [*parts, rewards.BUILT_IN[name]])
        score = f"_NUMBER = re.compile({rewards._NUMBER.pattern!r})\n\n\n{source}\n\nscore = {name}\n"
    else:
        file, _, function = name.rpartition(":")
        path = str(Path(file).expanduser().resolve())
        score = (
            f"_spec = importlib.util.spec_from_file_location('own_reward', {path!r})\n"
            "_own = importlib.util.module_from_spec(_spec)\n"
            f"sys.path.append({str(Path(path).parent)!r})\n"
            "_spec.loader.exec_module(_own)\n"
            f"score = _own.{function}\n"
        )
    return _REWARD.format(score=score.rstrip(), nested=tuple(nested), takes_chat=takes_chat), note


_REWARD = '''"""The reward as the layers were judged by it: `reward` has the signature of TRL's reward functions."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import re
import sys
from decimal import Decimal

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
