"""The state of a training run that is to go on later: weights, moments and curve; in memory or as a file."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from probes.errors import UsageError
from probes.policy import Policy
from probes.tasks.task import Row, Task
from probes.training.config import TrainingConfig
from probes.training.saved_layers import write_tensors

_STOPS = ("steps", "tokens_per_pass", "sampling_rows", "gradient_checkpointing")  # do not change the numbers


@dataclass(frozen=True)
class TrainingState:
    """What a run of `config` had reached after `steps_done` steps.

    ``setting`` is the `setting_of` the run. ``optimizer`` is of `MasterAdamW.state`: a master copy and moments for each
    parameter of ``names``. ``curve`` holds a record a step, as plain JSON.
    """

    layers: tuple[int, ...]
    config: TrainingConfig
    setting: str
    steps_done: int
    names: list[str]
    optimizer: list[dict[str, torch.Tensor]]
    curve: list[dict[str, Any]] = field(default_factory=list)

    def fits(self, layers: tuple[int, ...] | None, config: TrainingConfig, setting: str) -> bool:
        """Whether a run of `layers` by `config` would have got here by itself in this setting."""
        if setting != self.setting:
            return False
        comparable = [{k: v for k, v in asdict(c).items() if k not in _STOPS} for c in (self.config, config)]
        return self.layers == layers and comparable[0] == comparable[1] and self.steps_done <= config.steps

    def save(self, file: Path) -> None:
        """Write the state whole or not at all. Raises `RunError` where there is no room."""
        tensors = {
            f"{name}:{kind}": value
            for name, kept in zip(self.names, self.optimizer, strict=True)
            for kind, value in kept.items()
        }
        facts = {"layers": self.layers, "config": asdict(self.config), "setting": self.setting}
        facts |= {"steps_done": self.steps_done, "curve": self.curve}
        write_tensors(file, tensors, {"state": json.dumps(facts)}, "The state of a warm-up")

    @classmethod
    def load(cls, file: Path) -> "TrainingState":
        """The state that `save` wrote. Raises `UsageError` where the file cannot be read."""
        try:
            with safe_open(file, framework="pt") as opened:
                facts = json.loads(opened.metadata()["state"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise UsageError(f"'{file}' holds no state of a training run: {error}.") from error
        config = facts["config"] | {"adam_betas": tuple(facts["config"]["adam_betas"])}
        optimizer: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            parameter, kind = name.rsplit(":", 1)
            optimizer.setdefault(parameter, {})[kind] = value
        layers = tuple(facts["layers"])
        return cls(
            layers,
            TrainingConfig(**config),
            facts["setting"],
            facts["steps_done"],
            list(optimizer),
            list(optimizer.values()),
            facts["curve"],
        )


def setting_of(policy: Policy, task: Task, rows: Sequence[Row]) -> str:
    """SHA-256 of what a run depends on besides its configuration: the policy, its training rows, the reward."""
    content = [policy.fingerprint(), task.reward_fingerprint(), json.dumps(list(rows), sort_keys=True, default=str)]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def in_order(state: TrainingState, names: list[str]) -> list[dict[str, torch.Tensor]]:
    """The optimizer's state in the order of `names`. Raises `UsageError` where the parameters are others."""
    found = dict(zip(state.names, state.optimizer, strict=True))
    if set(found) != set(names):
        raise UsageError("The state of the warm-up is of another model: its parameters have other names.")
    return [found[name] for name in names]
