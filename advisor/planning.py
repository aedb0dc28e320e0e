"""What a run would do and take, before anything heavy: ``--dry-run``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.estimate import weights_dtype
from advisor.forecast import NEW_TOKENS, PROMPT_TOKENS
from advisor.measuring import Arms, OutputDir, begin_measuring, forecast_measuring
from advisor.measuring import identity_of as measuring_identity
from advisor.measuring_options import MeasuringOptions
from advisor.predicting import find_predictor
from advisor.store import SCHEMA_VERSION, finished_in
from advisor.subject import Subject
from advisor.survey import Options, begin_survey, forecast_survey
from advisor.survey import identity_of as survey_identity
from advisor.sweeping import arms_to_sweep
from advisor.verification import arms_to_prove, options_from
from advisor.warming import Warmup
from calibration.runs import arm_name
from calibration.sweep import count_runs
from probes.cost import Arm, StepShape, count_step
from probes.errors import RunError
from probes.policy import resolve_device
from probes.progress import Progress
from probes.rollouts import SamplingConfig
from probes.tasks import Task
from probes.training.state import TrainingState


@dataclass(frozen=True)
class Plan:
    """A run that has not begun. ``seconds`` are forecast by stage and rough, ``does`` says in sentences what is done.

    ``memory_bytes`` is what a run of all parameters needs beside the process itself, for prompts and completions of
    usual length; None where no run is of all, or it cannot be counted. ``folder`` is None where nothing is kept, or
    where it will be named after weights that are yet to be fetched.
    ``finished`` counts the measurements that an earlier run has left there.
    """

    verb: str
    model: dict[str, Any]
    task: dict[str, Any] | None
    does: list[str]
    completions: int
    training_runs: int
    seconds: dict[str, float]
    memory_bytes: int | None
    folder: Path | None
    finished: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verb": self.verb,
            "model": self.model,
            "task": self.task,
            "does": self.does,
            "completions": self.completions,
            "training_runs": self.training_runs,
            "seconds": {stage: round(value, 1) for stage, value in self.seconds.items()} | {"total": self.total},
            "memory_bytes": self.memory_bytes,
            "output_dir": self.folder and str(self.folder),
            "finished_measurements": self.finished,
        }

    @property
    def total(self) -> float:
        """Forecast seconds of the whole run."""
        return round(sum(self.seconds.values()), 1)


def plan_survey(
    verb: str,
    model: str,
    task: Task | None,
    options: Options,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
) -> Plan:
    """What `advisor.recommend` or a layer table would take. Cost: reads the configuration and the task.

    Raises `UsageError` as the run itself would, as far as that can be known without the weights.
    """
    subject, task = begin_survey(model, None, task, options, progress or Progress(), weights=False)
    facts = _model_facts(subject)
    sampling, seconds = options.sampling, forecast_survey(subject, facts["parameters"], options)
    does = ["measure " + ", ".join(p.name for p in options.chosen_probes()) + f" of {facts['n_layers']} layers"]
    completions = 0
    if task is not None:
        completions = sampling.max_prompts * sampling.group_size
        does.insert(
            0,
            f"sample {sampling.group_size} completions a prompt until {sampling.groups} prompts have completions of "
            f"different reward, from at most {sampling.max_prompts} prompts",
        )
    warmup = options.warmup
    if warmup is not None:
        arms = facts["n_layers"] * len(warmup.rates)
        rungs = ", ".join(map(str, warmup.rules.rungs))
        does.append(f"train {arms} single-layer policies together, scored after {rungs} steps")
    folder, finished = _place(subject, output_dir, lambda: survey_identity(subject, task, options))
    return Plan(verb, facts, task and _task_facts(task), does, completions, 0, seconds, None, folder, finished)


def plan_recommendation(
    model: str,
    task: Task | None,
    *,
    effort: str,
    decoding: str,
    sampling: SamplingConfig,
    warmup: Warmup | None,
    predictor: str | Path | None,
    layers: int,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
) -> Plan:
    """What `advisor.recommend` with these arguments would take (see `plan_survey`)."""
    options = Options(effort, decoding, sampling, None, device, dtype, trust_remote_code, warmup, predictor, layers)
    find_predictor(effort, decoding, predictor)
    return plan_survey("recommend", model, task, options, output_dir, progress)


def plan_proof(
    model: str,
    task: Task | None,
    pick: Sequence[int],
    also: Sequence[int],
    options: MeasuringOptions,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
    start: TrainingState | None = None,
) -> Plan:
    """What `advisor.verify` would take; an empty `pick` is one that is not known yet."""
    pick = tuple(sorted(set(pick)))
    options, _ = options_from(start, pick, options, progress or Progress())
    arms_of, asked = arms_to_prove(pick, also, options)
    return plan_measuring("verification", model, task, arms_of, options, output_dir, asked, progress)


def plan_sweep(
    model: str,
    task: Task | None,
    layers: Sequence[int] | None,
    options: MeasuringOptions,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
) -> Plan:
    """What `advisor.sweep` would take."""
    arms_of, asked = arms_to_sweep(layers, options)
    return plan_measuring("sweep", model, task, arms_of, options, output_dir, asked, progress)


def plan_measuring(
    kind: str,
    model: str,
    task: Task | None,
    arms_of: Callable[[int], Arms],
    options: MeasuringOptions,
    output_dir: OutputDir = None,
    asked: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Plan:
    """What a verification or sweep with these arms would take (see `advisor.measuring.measure_arms`, `plan_survey`).

    An arm of no layers stands for a pick that is not known yet.
    """
    subject, task, split = begin_measuring(model, None, task, arms_of, options, progress or Progress(), weights=False)
    facts, protocol = _model_facts(subject), options.protocol
    arms = list(dict.fromkeys(layers for _, layers in arms_of(facts["n_layers"])))
    runs, training = count_runs(protocol, len(arms)), protocol.training
    per_run = training.steps * training.prompts_per_step * training.group_size
    told = [{(): "the pick", None: "all parameters"}.get(layers) or arm_name(layers) for layers in arms]
    names = ", ".join(told) if len(arms) < 6 else f"{len(arms)} arms ({told[0]} to {told[-1]})"
    rates = ", ".join(f"{rate:g}" for rate in protocol.learning_rates)
    steps = "up to" if options.budget is None else "as many steps as fit into the budget, at most"
    does = [
        f"train {names} with {protocol.seeds} seeds, at the best of the rates {rates}",
        f"{runs} runs of {steps} {training.steps} steps of {training.prompts_per_step} prompts × {training.group_size}",
        f"score on {len(split.held_out)} held-out prompts, choose rates on {len(split.validation)} others",
    ]
    folder, finished = _place(
        subject, output_dir, lambda: measuring_identity(kind, subject, task, options, asked or {})
    )
    return Plan(
        {"verification": "verify"}.get(kind, kind),
        facts,
        _task_facts(task),
        does,
        runs * per_run,
        runs,
        forecast_measuring(subject, facts["parameters"], arms_of, options),
        _memory(subject, options) if None in arms else None,
        folder,
        finished,
    )


def _memory(subject: Subject, options: MeasuringOptions) -> int | None:
    """Bytes at the peak of a step that trains all parameters, with the copy to put back; None if not countable."""
    training, config, arm = options.protocol.training, subject.skeleton.config, Arm()
    shape = StepShape(
        training.prompts_per_step,
        training.group_size,
        PROMPT_TOKENS,
        options.max_new_tokens or NEW_TOKENS,
        gradient_checkpointing=training.gradient_checkpointing,
    )
    dtype = weights_dtype(options.dtype, config, resolve_device(options.device))
    try:
        counted = count_step(config, [arm], shape, dtype=dtype, trust_remote_code=options.trust_remote_code)
    except RunError:  # a model whose course depends on numbers can be trained all the same
        return None
    return counted.peak_bytes(arm) + counted.weight_bytes


def _model_facts(subject: Subject) -> dict[str, Any]:
    skeleton = subject.skeleton
    parameters = sum(p.numel() for p in skeleton.parameters())
    return {
        "name": subject.name,
        "class": type(skeleton).__name__,
        "n_layers": subject.n_layers,
        "parameters": parameters,
        "to_be_fetched": not subject.files.has_weights,
    }


def _task_facts(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "reward": task.reward_name,
        "train_prompts": len(task.train),
        "held_out_prompts": len(task.held_out),
    }


def _place(subject: Subject, output_dir: OutputDir, identity: Callable[[], dict[str, Any]]) -> tuple[Path | None, int]:
    """The output folder, and what is finished there."""
    if callable(output_dir):
        if not subject.files.has_weights:
            return None, 0
        output_dir = output_dir(identity())
    if output_dir is None:
        return None, 0
    return Path(output_dir), finished_in(Path(output_dir), identity() if subject.files.has_weights else None)
