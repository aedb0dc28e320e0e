"""Tasks by name: the built-in ones, reasoning-gym's, and the user's own file."""

from typing import Any

from probes.errors import UsageError, unknown_name
from probes.tasks.arithmetic import DESCRIPTIONS, arithmetic_task
from probes.tasks.jsonl import jsonl_task
from probes.tasks.task import Reward, Row, Task

DEFAULT = "addition"
_GYM = "reasoning-gym:"


def list_tasks() -> dict[str, str]:
    """Names and one-line descriptions of what `load_task` knows without a file."""
    return {**DESCRIPTIONS, _GYM + "NAME": "any generator of reasoning-gym (pip install 'layer-advisor[tasks]')"}


def load_task(
    name: str | None = None,
    *,
    data: str | None = None,
    reward: str | Reward | None = None,
    config: dict[str, Any] | None = None,
    seed: int = 0,
) -> Task:
    """The task called `name`, or that of the JSONL file `data` with `reward`.

    Raises `UsageError` where both or neither make sense, or a name is unknown.
    """
    if data is not None:
        if name is not None:
            raise UsageError(f"Both --task {name} and --data {data} were given: give one of them.")
        return jsonl_task(data, reward or "number")
    if reward is not None:
        raise UsageError("--reward goes with --data: the built-in tasks have their own reward. Add --data FILE.jsonl.")
    name = name or DEFAULT
    if name.startswith(_GYM):
        return reasoning_gym_task(name.removeprefix(_GYM), seed, config)
    if config:
        raise UsageError(f"--task-config is for reasoning-gym tasks; '{name}' takes no configuration.")
    if name not in DESCRIPTIONS:
        raise unknown_name("task", name, list_tasks(), "Or give your own with --data FILE.jsonl --reward NAME.")
    return arithmetic_task(name, seed)


def reload_task(origin: dict[str, Any]) -> Task:
    """The task that has this `origin`, in another process. Raises `UsageError` for a task made in Python."""
    if not ({"task", "data"} & set(origin)):
        raise UsageError(
            "A task made in Python cannot be sent to other processes. Use a built-in task or a data file with a reward "
            "by name, or run in this process alone."
        )
    return load_task(
        origin.get("task"),
        data=origin.get("data"),
        reward=origin.get("reward"),
        config=origin.get("config"),
        seed=origin.get("seed", 0),
    )


def reasoning_gym_task(name: str, seed: int, config: dict[str, Any] | None) -> Task:
    from probes.tasks.reasoning_gym import reasoning_gym_task as build

    return build(name, seed, config)


__all__ = ["DEFAULT", "Row", "Task", "list_tasks", "load_task", "reload_task"]
