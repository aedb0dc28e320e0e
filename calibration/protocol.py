"""The protocol: everything that a contribution depends on besides the policy and the task."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from probes.errors import UsageError, unknown_name
from probes.registry import DECODINGS
from probes.tasks.task import Row, Task, split_rows
from probes.training.config import TrainingConfig

ENGINES = ("native", "trl")
# On SmolLM2-135M all parameters learn at the first and collapse at the last, single layers the other way round
# (tests/benchmarks/results/verify_smollm2.md).
LEARNING_RATES = (3e-5, 1e-4, 3e-4)


@dataclass(frozen=True)
class Protocol:
    """How contributions are measured.

    ``training`` holds every hyper-parameter but the rate and the seed, which are set for each run: `seeds` seeds from
    ``training.seed`` on, and the rates of ``learning_rates``. Each arm (a layer, or all parameters) gets the rate that
    scores best on ``validation`` prompts taken out of the training rows, under ``decoding``; with ``rate_by``
    "first_seed" only the first seed tries every rate, with "every_seed" all do. Scores are taken on at most
    ``held_out`` held-out prompts, under both decodings, sampled ones as the mean of ``sampled_completions``. Arms in
    ``known_rates`` (by name) train at that rate alone, which a race of warm-ups chose.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    learning_rates: tuple[float, ...] = LEARNING_RATES
    seeds: int = 3
    rate_by: str = "first_seed"
    decoding: str = "greedy"
    held_out: int = 256
    validation: int = 256
    sampled_completions: int = 4
    engine: str = "native"
    known_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.decoding not in DECODINGS:
            raise unknown_name("decoding", self.decoding, DECODINGS, "Pass one of these as --decoding.")
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES, "Pass one of these as --engine.")
        if self.rate_by not in ("first_seed", "every_seed"):
            raise unknown_name("rate rule", self.rate_by, ("first_seed", "every_seed"), "Use one of these as rate_by.")
        for name in ("seeds", "held_out", "validation", "sampled_completions"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{getattr(self, name)} {name.replace('_', ' ')} are not allowed: the number must be at least 1."
                )
        if self.engine == "trl" and self.training.base_steps:
            raise UsageError("Base steps are of the native engine: use --engine native, or start without warm-ups.")
        if not self.learning_rates:
            raise UsageError("No learning rate was given: give at least one.")
        for rate in self.learning_rates:
            replace(self.training, learning_rate=rate)  # raises where it is out of range

    @property
    def seed_numbers(self) -> list[int]:
        return [self.training.seed + i for i in range(self.seeds)]

    @property
    def searching_seeds(self) -> list[int]:
        """The seeds that try every rate."""
        return self.seed_numbers if self.rate_by == "every_seed" else self.seed_numbers[:1]

    def rates_of(self, arm: str) -> tuple[float, ...]:
        """The rates that an arm tries, lowest first."""
        return (self.known_rates[arm],) if arm in self.known_rates else tuple(sorted(self.learning_rates))

    def config(self, seed: int, learning_rate: float) -> TrainingConfig:
        """The hyper-parameters of one run."""
        return replace(self.training, seed=seed, learning_rate=learning_rate)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "Protocol":
        """The protocol that `as_dict` told of."""
        names = {field.name for field in fields(TrainingConfig)} & set(told)
        training = {name: told[name] for name in names} | {"adam_betas": tuple(told["adam_betas"])}
        others = ("rate_by", "decoding", "held_out", "validation", "sampled_completions", "engine", "known_rates")
        return cls(
            training=TrainingConfig(**training, seed=told["seeds"][0]),
            learning_rates=tuple(told["learning_rates"]),
            seeds=len(told["seeds"]),
            **{name: told[name] for name in others},
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: the training fields at the top level, the rates as a list."""
        training = asdict(self.training)
        for name in ("learning_rate", "seed", "tokens_per_pass"):
            training.pop(name)
        return {
            **training,
            "adam_betas": list(self.training.adam_betas),
            "learning_rates": list(self.learning_rates),
            "rate_by": self.rate_by,
            "known_rates": self.known_rates,
            "seeds": self.seed_numbers,
            "decoding": self.decoding,
            "held_out": self.held_out,
            "validation": self.validation,
            "sampled_completions": self.sampled_completions,
            "engine": self.engine,
        }


@dataclass(frozen=True)
class Split:
    """The prompts of a task by use: no prompt is in two of them."""

    train: list[Row]
    validation: list[Row]
    held_out: list[Row]


def split_task(task: Task, protocol: Protocol) -> Split:
    """Training, validation and held-out prompts.

    Validation prompts come out of the training rows by a hash of the prompt, at most a fifth of them; held-out ones are
    drawn by the protocol's first seed where there are more than are used.
    """
    share = min(0.2, protocol.validation / len(task.train))
    train, validation = split_rows(task.train, share)
    held_out = list(task.held_out)
    order = np.random.default_rng(protocol.training.seed).permutation(len(held_out))[: protocol.held_out]
    return Split(train, validation, [held_out[i] for i in sorted(order)])
