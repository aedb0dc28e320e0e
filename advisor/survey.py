"""Everything that is measured on one policy for one task: the part that `recommend` and `probe` share."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from advisor import warming
from advisor.decision import MIN_GROUPS, Verdict, judge_reward, looks_trained
from advisor.environment import peak_memory_bytes
from advisor.forecast import forecast, forecast_warmup
from advisor.predicting import expected_order, own_pairs
from advisor.processes import n_processes
from advisor.store import SCHEMA_VERSION, RunFolder
from advisor.subject import Subject
from advisor.warming import Warmup, warm_up
from calibration.known import KnownSweep, known_sweeps
from calibration.race import Race
from probes.checkpoint import LoadedWeights, open_weights
from probes.cost.layer_work import layer_costs
from probes.errors import UsageError, unknown_name
from probes.measure import measure
from probes.memory import Memory
from probes.policy import Policy
from probes.progress import Progress
from probes.registry import DECODINGS, EFFORTS, Probe, get_probe, list_probes
from probes.rollouts import Rollouts, SamplingConfig, collect_rollouts
from probes.scoring import measure_headroom
from probes.table import LayerTable
from probes.tasks import Task, load_task
from probes.training.in_place import trained_parameters
from probes.training.state import TrainingState


@dataclass(frozen=True)
class Options:
    """How to measure. ``probes`` None takes every probe of the effort; ``warmup`` matters at that effort only."""

    effort: str = "probe"
    decoding: str = "greedy"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    probes: tuple[str, ...] | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    warmup: Warmup | None = None
    predictor: str | Path | None = None  # a folder of `advisor calibrate`, or one of its files; None is the shipped one
    n_picked: int = 1  # layers of the pick

    def __post_init__(self) -> None:
        if self.effort == "warmup" and self.warmup is None:
            object.__setattr__(self, "warmup", Warmup())
        if self.effort not in EFFORTS:
            raise unknown_name("effort", self.effort, EFFORTS, "Pass one of these as --effort.")
        if self.n_picked < 1:
            raise UsageError(f"A set of {self.n_picked} layers is not allowed (--layers): it has at least 1.")
        if self.decoding not in DECODINGS:
            raise unknown_name("decoding", self.decoding, DECODINGS, "Pass one of these as --decoding.")
        if self.effort != "static" and self.sampling.groups < MIN_GROUPS:
            raise UsageError(
                f"{self.sampling.groups} groups are too few: two halves of two take at least {MIN_GROUPS}. Raise "
                "--groups."
            )

    def check_pick(self, n_layers: int) -> None:
        """Raise `UsageError` unless so many layers can be picked of `n_layers`."""
        if self.n_picked > n_layers:
            raise UsageError(
                f"A set of {self.n_picked} layers was asked for (--layers), but the policy has {n_layers}."
            )

    def chosen_probes(self) -> list[Probe]:
        if self.probes is None:
            return list_probes(self.effort)
        chosen = [get_probe(name) for name in self.probes]
        for p in chosen:
            if EFFORTS.index(p.effort) > EFFORTS.index(self.effort):
                raise UsageError(f"The probe '{p.name}' needs --effort {p.effort}, not {self.effort}.")
        return chosen


@dataclass(frozen=True)
class Survey:
    """What was measured. ``rollouts`` and ``headroom`` are None at static effort; ``verdict`` is set where the rewards
    alone say no; ``race`` and its ``finalists``' states, by layer, are there at effort warmup. ``step_costs``
    are `probes.cost.layer_work.layer_costs`, None for a GGUF file that was not loaded."""

    model: dict[str, Any]
    task: Task | None
    options: Options
    probes: list[Probe]
    table: LayerTable
    rollouts: Rollouts | None
    headroom: np.ndarray | None
    verdict: Verdict | None
    seconds: dict[str, float]
    peak_memory: int | None
    folder: RunFolder | None
    race: Race | None = None
    finalists: dict[int, TrainingState] = field(default_factory=dict)
    known: list[KnownSweep] = field(default_factory=list)
    step_costs: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """The layer table as plain JSON (``table.json``)."""
        columns = {c.name: c for p in self.probes for c in p.columns}
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "task": self.task and self.task.name,
            "columns": {
                n: {"unit": columns[n].unit, "meaning": columns[n].meaning, "values": values.tolist()}
                for n, values in self.table.columns.items()
            },
            "not_measured": self.table.failures,
            "seconds": self.seconds,
        }


def survey(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | str | None,
    options: Options,
    output_dir: str | Path | Callable[[dict[str, Any]], Path] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Measure the layers of `model` on `task`; cheap checks come before anything slow.

    `output_dir` may be a function of the run's identity. Raises `UsageError` for bad input and `RunError` where the
    run breaks; a given model is as found afterwards.
    """
    progress = progress or Progress()
    if n_processes() > 1:
        raise UsageError("Probes run in one process: start this without a launcher, then launch advisor verify --from.")
    subject, task = begin_survey(model, tokenizer, task, options, progress)
    progress.plan(forecast_survey(subject, subject.n_parameters, options))
    identity = identity_of(subject, task, options)
    target = output_dir(identity) if callable(output_dir) else output_dir
    folder = RunFolder(target, identity) if target is not None else None
    with ExitStack() as closing:
        if folder:
            closing.enter_context(folder)
            if folder.resumed:
                progress.note(f"going on with the run in {folder.path}")
        found = _measure(subject, task, options, folder, progress)
        closing.pop_all()  # the caller writes its results before it closes the folder
    return found


def begin_survey(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | str | None,
    options: Options,
    progress: Progress,
    weights: bool = True,
) -> tuple[Subject, Task | None]:
    """Model and task, found and checked and not loaded; without its `weights` a model is not even fetched."""
    options.chosen_probes()
    task = load_task(task, seed=options.sampling.seed) if isinstance(task, str | None) else task
    place = {"device": options.device, "dtype": options.dtype, "trust_remote_code": options.trust_remote_code}
    subject = Subject(model, tokenizer, **place, progress=progress, weights=weights)
    if not subject.is_gguf:  # whose configuration takes seconds to read, and may be one that transformers cannot
        options.check_pick(subject.n_layers)
    return subject, None if options.effort == "static" else task


def forecast_survey(subject: Subject, n_parameters: float, options: Options) -> dict[str, float]:
    """Seconds by stage."""
    plan = forecast(n_parameters, options.effort, **vars(options.sampling))
    if options.effort == "warmup":
        plan |= forecast_warmup(n_parameters, options.warmup, options.sampling.max_new_tokens, subject.n_layers)
    return plan


def _measure(
    subject: Subject, task: Task | None, options: Options, folder: RunFolder | None, progress: Progress
) -> Survey:
    start, probes = time.perf_counter(), options.chosen_probes()
    memory, seconds = folder or Memory(), {}
    policy = rollouts = headroom = verdict = None
    if options.effort == "static" and subject.files:
        weights = open_weights(subject.files, options.trust_remote_code)
    else:
        with _timed(seconds, "load"):
            policy = subject.policy(progress)
        if options.effort == "warmup":
            trained_parameters(policy, [0])  # raises for weights that cannot be trained, before anything slow
        weights = LoadedWeights.of(policy)
    if options.effort != "static":
        with _timed(seconds, "rollouts"):
            rollouts = collect_rollouts(policy, task, options.sampling, progress, memory)
            verdict = judge_reward(rollouts, None, options.decoding, task.max_reward)
        if verdict is None:
            with _timed(seconds, "held-out prompts"):
                headroom = measure_headroom(
                    policy, task, options.sampling, rollouts.max_new_tokens, options.decoding, progress, memory
                )
                verdict = judge_reward(rollouts, headroom, options.decoding, task.max_reward)
    runnable = probes if verdict is None else [p for p in probes if p.effort == "static"]
    key = rollouts.fingerprint()[:16] if rollouts else ""
    table = measure(runnable, weights, policy, rollouts, progress=progress, memory=memory, key=key)
    for p in probes:
        if p not in runnable:
            table.failures[p.name] = "not measured: " + verdict.text
    seconds |= {f"probe {name}": value for name, value in table.seconds.items()}
    race, finalists = None, {}
    if options.effort == "warmup" and verdict is None and looks_trained(table):
        with _timed(seconds, "warm-ups"):
            race, finalists = _race(
                policy,
                task,
                options,
                expected_order(table, options.decoding),
                rollouts,
                key,
                memory,
                folder,
                progress,
            )
    # Of a GGUF file that transformers need not know, only the layers are read.
    countable = policy is not None or not subject.is_gguf
    with _timed(seconds, "step costs"):
        costs = layer_costs(subject.skeleton, trust_remote_code=options.trust_remote_code) if countable else None
    seconds["total"] = time.perf_counter() - start
    seconds, peak = _whole_cost(memory, key, seconds, peak_memory_bytes())
    facts = subject.facts(weights)
    known = known_sweeps(
        subject.name,
        facts["layer_parameters"],
        policy and policy.weights_fingerprint,
        options.decoding,
        own_pairs(options.predictor),
    )
    return Survey(
        facts,
        task,
        options,
        probes,
        table,
        rollouts,
        headroom,
        verdict,
        seconds,
        peak,
        folder,
        race,
        finalists,
        known,
        costs,
    )


def _race(
    policy: Policy,
    task: Task,
    options: Options,
    order: Sequence[int],
    rollouts: Rollouts,
    key: str,
    memory: Memory,
    folder: RunFolder | None,
    progress: Progress,
) -> tuple[Race, dict[int, TrainingState]]:
    """The race, under the decoding and sampling of this survey."""
    sampling, protocol = options.sampling, options.warmup.protocol
    names = ("group_size", "temperature", "prompt_style", "seed")
    training = replace(protocol.training, **{name: getattr(sampling, name) for name in names})
    warmup = replace(options.warmup, protocol=replace(protocol, training=training, decoding=options.decoding))
    place = folder and folder.path
    return warm_up(
        policy,
        task,
        warmup,
        order,
        rollouts.max_new_tokens,
        memory=memory,
        key=f"{key} ",
        folder=place,
        progress=progress,
    )


def identity_of(subject: Subject, task: Task | None, options: Options) -> dict[str, Any]:
    """What makes two runs the same. The reward is left out: mending it must not lose the sampled completions."""
    return subject.identity() | {
        "task": task and task.name,
        "task_origin": task and {k: v for k, v in task.origin.items() if k != "reward"},
        "task_fingerprint": task and task.fingerprint(),
        "effort": options.effort,
        "decoding": options.decoding,
        "sampling": vars(options.sampling) if task else None,
        "probes": options.probes and list(options.probes),
        "warmup": warming.identity(options.warmup) if options.effort == "warmup" else None,
    }


def _whole_cost(
    memory: Memory, key: str, seconds: dict[str, float], peak: int | None
) -> tuple[dict[str, float], int | None]:
    """What the run cost when it was first finished; running a finished one again costs little and changes nothing."""
    finished = memory.recall("cost", key)
    if finished is None:
        memory.keep("cost", key, {"seconds": seconds, "peak": peak})
        return seconds, peak
    return finished["seconds"], finished["peak"]


class _timed:
    """Adds the seconds spent inside to `seconds[name]`."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *exc) -> None:
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.perf_counter() - self.start
