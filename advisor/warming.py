"""Effort "warmup": the layers still in question are trained together for a few steps, raced."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from advisor.environment import available_memory_bytes
from calibration.protocol import Protocol, split_task
from calibration.race import CALIBRATED, Race, RaceRules, run_race
from probes.errors import UsageError
from probes.memory import Memory
from probes.peak_memory import release_free_memory
from probes.policy import Policy
from probes.progress import Progress
from probes.tasks import Task
from probes.training.expected import know
from probes.training.joint import Arm, JointTrainer
from probes.training.memory import joint_bytes
from probes.training.state import TrainingState

# Those of the corpus, around the rate that is best for single layers of SmolLM2-135M
# (tests/benchmarks/results/verify_smollm2.md).
WARMUP_RATES = (1e-4, 3e-4, 1e-3)
_MEMORY_SHARE = 0.7  # of what is free: the rest is for activations and caches


@dataclass(frozen=True)
class Warmup:
    """How layers are warmed up.

    ``protocol`` is that of the runs that the warm-ups are the beginning of; `rates` are raced in place of its rates.
    ``budget`` in seconds bounds the race. Each layer samples for itself from its second step on; with ``on_base`` all
    steps train on completions of the base policy instead, drawn once for all layers, which is cheaper and less like
    the training that it stands for.
    """

    protocol: Protocol = field(default_factory=Protocol)
    rates: tuple[float, ...] = WARMUP_RATES
    rules: RaceRules = CALIBRATED
    budget: float | None = None
    on_base: bool = False

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget <= 0:
            raise UsageError(f"The budget {self.budget:g} s is not allowed: it must be above 0.")
        if not self.rates:
            raise UsageError("No rate was given to race: give at least one with --race-rates.")
        for rate in self.rates:
            replace(self.protocol.training, learning_rate=rate)  # raises where it is out of range

    @property
    def steps(self) -> int:
        return self.rules.rungs[-1]

    def full_protocol(self) -> Protocol:
        """The protocol of runs that go on where the warm-ups end: with the same base steps, for every arm."""
        base_steps = self.steps if self.on_base else 0
        return replace(self.protocol, training=replace(self.protocol.training, base_steps=base_steps))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        full = self.full_protocol().as_dict()
        names = ("algorithm", "prompts_per_step", "group_size", "warmup_steps", "base_steps", "kl", "updates_per_batch")
        return {
            **{name: full[name] for name in names},
            "learning_rates": list(self.rates),
            "rungs": list(self.rules.rungs),
            "prompts": self.rules.prompts,
            "validation": self.protocol.validation,
            "z": self.rules.z,
            "keep": self.rules.keep,
            "budget": self.budget,
        }


def warm_up(
    policy: Policy,
    task: Task,
    warmup: Warmup,
    order: Sequence[int],
    max_new_tokens: int,
    *,
    memory: Memory,
    key: str,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Race, dict[int, TrainingState]]:
    """Race all layers of `policy`, `order` best guess first; returns the race and the states of its finalists by layer.

    Validation prompts decide (`calibration.protocol.split_task`), so that held-out ones stay unseen. Finished rungs are
    kept in `memory` under `key`, states of arms still in the race in `folder`. The policy is left as found.
    """
    progress = progress or Progress()
    race = _recalled(memory, key)
    if race is not None and race.ended:
        return race, _finalists(race, folder)
    protocol = warmup.full_protocol()
    split = split_task(task, protocol)
    config = replace(protocol.training, steps=warmup.steps, max_new_tokens=max_new_tokens)
    kept = _states(folder, race)
    if race is not None and not kept:
        progress.note("the states of the warm-ups are not here: they begin again")
        race = None
    arms = [(state.layers[0], state.config.learning_rate) for state in kept] or affordable(
        policy, warmup.rates, order, progress
    )
    progress.begin("warm up all layers", _units(len(arms), len(warmup.rates), warmup.rules, race))

    def keep(now: Race) -> None:
        """States first, then the journal, and only then are the states of the rung before removed."""
        if not now.ended:  # the last rung is kept once the finalists' states are
            _keep_states(folder, trainer, now)
            memory.keep("race", f"{key}{len(now.rungs)}", now.as_dict())
            _remove_states(folder, but=now.rungs[-1].step)
        out = sum(s.out is not None for s in now.rungs[-1].standings)
        progress.note(f"step {now.rungs[-1].step}: {out} of {len(now.rungs[-1].standings)} arms stop")

    with JointTrainer(policy, task, config, arms, rows=split.train, on_arms=progress.advance) as trainer:
        if trainer.why_apart:
            progress.note(f"layers are trained one after another: {trainer.why_apart}")
        if kept:
            trainer.restore(kept)
        known = None
        if protocol.decoding == "sampled":
            known = know(policy, task, split.validation[: warmup.rules.prompts], trainer.config)
            if not known.serves:
                progress.note(f"known completions hold {known.share:.0%} of the reward: warm-ups answer for themselves")
                known = None
        race = run_race(
            trainer,
            split.validation,
            warmup.rules,
            decoding=protocol.decoding,
            known=known,
            samples=protocol.sampled_completions,
            seed=protocol.training.seed,
            budget=warmup.budget,
            preference=arms,
            start=race,
            on_rung=keep,
        )
        race = replace(race, why_apart=trainer.why_apart)
        live = [(s.layer, s.rate) for s in race.finalists if (s.layer, s.rate) in trainer.live]
        states = {layer: trainer.state((layer, rate)) for layer, rate in live}
    if folder is not None:
        for layer, state in states.items():
            state.save(_finalist_file(folder, layer))
    memory.keep("race", key + "ended", race.as_dict())
    _remove_states(folder)
    return race, states


def affordable(policy: Policy, rates: Sequence[float], order: Sequence[int], progress: Progress) -> list[Arm]:
    """The arms that memory has room for, most wanted first: every layer at the highest rate, then at the others.

    Raises `UsageError` where there is not even room for two.
    """
    wanted = [(layer, rate) for rate in sorted(rates, reverse=True) for layer in order]
    release_free_memory()
    free = available_memory_bytes(policy.device)
    if free is None:
        return wanted
    base, arms, used = joint_bytes(policy, []), [], 0
    for arm in wanted:
        used += joint_bytes(policy, [arm[0]]) - base
        if used > _MEMORY_SHARE * free:
            break
        arms.append(arm)
    if len(arms) < min(2, len(wanted)):
        raise UsageError(
            f"Training two layers at once takes more than the {free / 2**30:.1f} GiB of memory that are free: use "
            "--effort probe, or a smaller --dtype."
        )
    if len(arms) < len(wanted):
        progress.note(f"memory has room for {len(arms)} of {len(wanted)} warm-ups: the least promising are left out")
    return arms


def load_finalist(folder: Path, layer: int) -> TrainingState | None:
    """What a finalist of the race in a run's folder has reached; None where the layer is none."""
    file = _finalist_file(folder, layer)
    return TrainingState.load(file) if file.exists() else None


def _races(folder: Path) -> Path:
    return folder / "warmups"


def _finalist_file(folder: Path, layer: int) -> Path:
    return _races(folder) / f"layer-{layer}.safetensors"


def _arm_file(folder: Path, step: int, arm: Arm) -> Path:
    return _races(folder) / f"step-{step}" / f"layer-{arm[0]}-rate-{arm[1]:g}.safetensors"


def _recalled(memory: Memory, key: str) -> Race | None:
    """The race as far as it was kept."""
    ended = memory.recall("race", key + "ended")
    if ended is not None:
        return Race.from_dict(ended)
    found, n = None, 1
    while (kept := memory.recall("race", f"{key}{n}")) is not None:
        found, n = Race.from_dict(kept), n + 1
    return found


def _finalists(race: Race, folder: Path | None) -> dict[int, TrainingState]:
    layers = [s.layer for s in race.finalists] if folder is not None else []
    found = {layer: load_finalist(folder, layer) for layer in layers}
    return {layer: state for layer, state in found.items() if state is not None}


def _states(folder: Path | None, race: Race | None) -> list[TrainingState]:
    """The states of the arms that go on from the last rung; none where any is missing."""
    if folder is None or race is None:
        return []
    rung = race.rungs[-1]
    files = [_arm_file(folder, rung.step, (s.layer, s.rate)) for s in rung.standings if s.out is None]
    return [TrainingState.load(file) for file in files] if all(file.exists() for file in files) else []


def _keep_states(folder: Path | None, trainer: JointTrainer, race: Race) -> None:
    """Write the states of the arms in the race."""
    if folder is not None:
        for arm in trainer.live:
            trainer.state(arm).save(_arm_file(folder, race.rungs[-1].step, arm))


def _remove_states(folder: Path | None, but: int | None = None) -> None:
    """Remove the states of all rungs, or of all but one."""
    if folder is not None:
        for other in _races(folder).glob("step-*"):
            if other.name != f"step-{but}":
                shutil.rmtree(other)


def _units(n_arms: int, n_rates: int, rules: RaceRules, race: Race | None) -> float:
    """Steps of arms to come, scorings included, if every rung keeps the share that it may."""
    done = race.rungs[-1].step if race else 0
    arms, total, before = float(n_arms), 0.0, done
    for index, step in enumerate(rules.rungs):
        if step <= done:
            continue
        total += arms * (step - before + 1.0)
        arms = max(1.0, arms * rules.keep / (n_rates if index == rules.rate_rung else 1))
        before = step
    return total


def identity(warmup: Warmup | None) -> dict[str, Any] | None:
    """What makes two races the same."""
    if warmup is None:
        return None
    protocol = warmup.protocol
    training = {name: value for name, value in asdict(protocol.training).items() if name != "steps"}
    others = {"sampled_completions": protocol.sampled_completions, "rate_rung": warmup.rules.rate_rung}
    found = warmup.as_dict() | {"training": training, **others}
    return json.loads(json.dumps(found))
