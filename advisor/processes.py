"""Several processes of one run, as `accelerate launch` starts them: all do the same, the first writes and prints."""

import os
from typing import Any

from probes.memory import Memory


def n_processes() -> int:
    """How many processes work on this run together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


class SharedMemory(Memory):
    """The first process's memory, read by all alike; the others keep nothing."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def recall(self, kind: str, key: str) -> Any:
        return agreed(self.memory.recall(kind, key))

    def keep(self, kind: str, key: str, value: Any) -> None:
        if is_first():
            self.memory.keep(kind, key, value)


def agreed(value: Any) -> Any:
    """The first process's value, in every process."""
    if n_processes() == 1:
        return value
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState()  # joins the processes
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]
