"""One training run: what is trained, with which seed and rate, and the record that is kept of it."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.protocol import Protocol, Split
from probes.errors import NotFiniteError, RunError
from probes.peak_memory import PeakMemory, release_free_memory
from probes.policy import Policy
from probes.registry import DECODINGS
from probes.scoring import score_policy
from probes.tasks.task import Row, Task
from probes.training import Trainer, TrainingConfig, TrainingFailure
from probes.training.saved_layers import save_layers
from probes.training.state import TrainingState, setting_of

FULL = "full"


class UnscoredError(RunError):
    """The reward scored none of the prompts that a policy answered."""


@dataclass(frozen=True)
class Run:
    """Training of one arm: some layers, or every parameter (``layers`` None)."""

    layers: tuple[int, ...] | None
    seed: int
    learning_rate: float

    @property
    def arm(self) -> str:
        return arm_name(self.layers)

    @property
    def key(self) -> str:
        """Tells the runs of one protocol apart."""
        return f"{self.arm}, seed {self.seed}, rate {self.learning_rate:g}"


def arm_name(layers: tuple[int, ...] | None) -> str:
    """ "layer 3", "layers 3+4", or "full"."""
    if layers is None:
        return FULL
    return f"layer{'s' if len(layers) > 1 else ''} {'+'.join(map(str, layers))}"


def perform(
    policy: Policy,
    task: Task,
    split: Split,
    protocol: Protocol,
    run: Run,
    *,
    save_to: Path | None = None,
    on_step: Callable[[], None] = lambda: None,
    engine_options: dict[str, Any] | None = None,
    start: TrainingState | None = None,
    score: Callable[..., dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train one arm and score it; returns the record as plain JSON. The policy is left as found.

    `score` takes the place of `score_both`.

    `start` is where a warm-up of this very run had got to (``went_on_from`` says after which step); one of another run
    is left aside.

    A run that broke down has ``failed`` (the reason) and no score. ``held_out`` holds one score a prompt (None where
    unscored) under each decoding, ``validation`` their means on the validation prompts, ``curve`` one record a step.
    """
    release_free_memory()  # what earlier runs left must not count as this one's
    began, peak = time.perf_counter(), PeakMemory(policy.device)
    facts = {"policy": policy.name, "run": run.key, "task": task.name}
    if save_to is not None:
        facts["fingerprint"] = policy.fingerprint()
    config = protocol.config(run.seed, run.learning_rate)
    record = {"arm": run.arm, "layers": run.layers and list(run.layers), "seed": run.seed, "rate": run.learning_rate}
    if start is not None and (
        protocol.engine != "native" or not start.fits(run.layers, config, setting_of(policy, task, split.train))
    ):
        start = None
    curve: list[dict[str, Any]] = list(start.curve) if start else []
    if start is not None:
        record["went_on_from"] = start.steps_done

    def note(step) -> None:
        curve.append(asdict(step))
        on_step()

    try:
        with make_trainer(policy, task, split, protocol, run.layers, config, engine_options, start) as trainer:
            trainer.run(note)
            try:
                record |= (score or score_both)(policy, task, split, protocol, config.max_new_tokens)
            except (NotFiniteError, UnscoredError) as error:
                raise TrainingFailure(config.steps - 1, f"its answers cannot be scored ({error})") from error
            record["trained_parameters"] = sum(p.numel() for p in trainer.trained.values())
            if save_to is not None:
                save_layers(save_to, trainer.weights(), policy.dtype, facts)
        record["failed"] = None
    except TrainingFailure as failure:
        record |= {"failed": str(failure), "failed_at_step": failure.step}
    record |= {"curve": plain_curve(curve), "final_reward": final_reward(curve)}
    return record | {"seconds": time.perf_counter() - began, "peak_memory_bytes": peak.bytes()}


def score_both(policy: Policy, task: Task, split: Split, protocol: Protocol, max_new_tokens: int) -> dict[str, Any]:
    """Scores of the policy as it is: ``held_out`` per prompt and ``validation`` means, under both decodings.

    Raises `UnscoredError` where the reward scores none of the prompts.
    """

    def scores(rows: list[Row], decoding: str) -> np.ndarray:
        return score_policy(
            policy,
            task,
            rows,
            decoding=decoding,
            max_new_tokens=max_new_tokens,
            temperature=protocol.training.temperature,
            samples=protocol.sampled_completions,
            prompt_style=protocol.training.prompt_style,
            seed=protocol.training.seed,
        )

    validation = {decoding: scores(split.validation, decoding) for decoding in DECODINGS}
    held_out = {decoding: scores(split.held_out, decoding) for decoding in DECODINGS}
    for what, found in (("validation", validation), ("held-out", held_out)):
        if any(np.isnan(values).all() for values in found.values()):
            raise UnscoredError(f"the reward gave None on every {what} prompt")
    return {
        "validation": {decoding: plain(np.nanmean(values)) for decoding, values in validation.items()},
        "held_out": {decoding: [plain(v) for v in values] for decoding, values in held_out.items()},
    }


def make_trainer(
    policy: Policy,
    task: Task,
    split: Split,
    protocol: Protocol,
    layers: tuple[int, ...] | None,
    config: TrainingConfig,
    engine_options: dict[str, Any] | None = None,
    start: TrainingState | None = None,
):
    """The trainer of the protocol's engine, to be used as a context."""
    if protocol.engine == "trl":
        from probes.training.trl import TRLTrainer

        return TRLTrainer(policy, task, config, layers=layers, rows=split.train, options=engine_options)
    return Trainer(policy, task, config, layers=layers, rows=split.train, start=start)


def plain_curve(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One plain record a step."""
    return [{name: plain(value) for name, value in step.items()} for step in curve]


def final_reward(curve: list[dict[str, Any]]) -> float | None:
    """Mean training reward of the last fifth of the steps; None without any."""
    rewards = [step["reward"] for step in curve]
    return plain(np.nanmean(rewards[-max(1, len(rewards) // 5) :])) if rewards else None


def plain(value: float) -> float | int | None:
    """A JSON number; None for NaN."""
    if isinstance(value, int):
        return value
    return None if np.isnan(value) else round(float(value), 8)
