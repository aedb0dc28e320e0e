"""Prove a pick: full single-layer RL against the base policy, full-parameter RL and the middle layer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from advisor.contributions import Contributions
from advisor.decision import judge_pick
from advisor.measuring import Arms, OutputDir, measure_arms
from advisor.measuring_options import MeasuringOptions
from advisor.subject import identity_hash
from calibration.protocol import Protocol
from calibration.runs import arm_name
from probes.errors import UsageError, unknown_name
from probes.progress import Progress
from probes.tasks import Task, reload_task
from probes.training import TrainingConfig
from probes.training.state import TrainingState

# Settings of warm-ups that a verification takes over, so that the pick's training can go on from its own.
WARMUP_SETTINGS = ("algorithm", "prompts_per_step", "warmup_steps", "kl", "updates_per_batch")


def verify(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | str | None = None,
    *,
    layer: int | Sequence[int],
    also: Sequence[int] = (),
    options: MeasuringOptions | None = None,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
    start: TrainingState | None = None,
) -> Contributions:
    """Train `layer` (several are trained together) and say what that brings, with a 90 % interval and a verdict.

    Beside it run the middle layer by position, every layer of `also`, and full-parameter training (unless the reference
    is "none"). The model is left as found; with `output_dir` finished runs are kept there, and a run that was stopped
    goes on. `start` is the state that a warm-up of the pick has reached: with the native engine its training goes on
    there, at its rate, and all arms take as many base steps as it did. Cost: arms x (rates + seeds - 1) training runs.
    Raises `UsageError` for bad input, `RunError` where the run breaks.
    """
    pick = (layer,) if isinstance(layer, int) else tuple(sorted(set(layer)))
    options, start = options_from(start, pick, options or MeasuringOptions(), progress or Progress())
    arms_of, asked = arms_to_prove(pick, also, options)
    return measure_arms(
        "verification", model, tokenizer, task, arms_of, judge_pick, options, output_dir, progress, asked, start
    )


def arms_to_prove(
    pick: Sequence[int], also: Sequence[int], options: MeasuringOptions
) -> tuple[Callable[[int], Arms], dict[str, Any]]:
    """The arms of a verification in a stack of so many layers, and what tells it from others."""

    def arms_of(n_layers: int) -> Arms:
        arms: Arms = [("pick", tuple(pick)), ("middle", (n_layers // 2,)), *(("also", (k,)) for k in also)]
        return arms + ([("full", None)] if options.reference == "full" else [])

    return arms_of, {"layer": list(pick), "also": sorted(set(also))}


def options_from(
    start: TrainingState | None, pick: tuple[int, ...], options: MeasuringOptions, progress: Progress
) -> tuple[MeasuringOptions, TrainingState | None]:
    """Options under which the pick's training goes on from `start`; None in its place where it has to begin anew."""
    if start is not None:
        options = _going_on(options, pick, start)
        if not options.protocol.known_rates:
            progress.note("the pick's training begins anew: warm-ups are of the native engine and one layer")
            start = None
    return options, start


def _going_on(options: MeasuringOptions, pick: tuple[int, ...], start: TrainingState) -> MeasuringOptions:
    """Options under which the pick's training can go on from `start`: its rate, its base steps, its room for answers.

    Unchanged where it is another layer's, or the engine is not the native one, which alone warms up.
    """
    protocol, begun = options.protocol, start.config
    if protocol.engine != "native" or start.layers != pick:
        return options
    training = replace(protocol.training, base_steps=begun.base_steps)
    known = {**protocol.known_rates, arm_name(pick): begun.learning_rate}
    room = begun.max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
    return replace(options, protocol=replace(protocol, training=training, known_rates=known), max_new_tokens=room)


def folder_in(source: str | Path) -> Callable[[dict[str, Any]], Path]:
    """Where the verifications of the recommendation in `source` go: each protocol into a folder of its own."""
    return lambda identity: Path(source).expanduser() / f"verification-{identity_hash(identity)}"


def options_like(protocol: dict[str, Any], place: dict[str, Any] | None = None, **changes) -> MeasuringOptions:
    """Measuring options with a recommendation's decoding, sampling and seed; `changes` are fields of `Protocol` or
    `TrainingConfig`.

    `place` are fields of `MeasuringOptions` that say how the model is loaded.
    """
    warmup = protocol.get("warmup") or {}
    told = {**protocol, "algorithm": "grpo", **warmup}
    names = ("group_size", "temperature", "prompt_style", "seed", *WARMUP_SETTINGS)
    training = TrainingConfig(**{name: told[name] for name in names if name in told})
    of_training = {field.name for field in fields(TrainingConfig)}
    unknown = sorted(set(changes) - of_training - {field.name for field in fields(Protocol)})
    if unknown:
        raise unknown_name(
            "setting",
            unknown[0],
            [field.name for field in (*fields(Protocol), *fields(TrainingConfig))],
            "Give fields of advisor.Protocol or advisor.TrainingConfig.",
        )
    training = replace(training, **{k: changes.pop(k) for k in sorted(changes) if k in of_training})
    split = {"validation": warmup["validation"]} if warmup else {}
    settings = {"training": training, "decoding": protocol["decoding"], **split, **changes}
    return MeasuringOptions(Protocol(**settings), max_new_tokens=protocol.get("max_new_tokens"), **(place or {}))


def read_recommendation(folder: str | Path) -> dict[str, Any]:
    """The content of ``ranking.json`` in a recommendation's folder. Raises `UsageError` where it has no pick."""
    file = Path(folder).expanduser() / "ranking.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        pick, _ = found["pick"], found["model"]["name"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(
            f"'{folder}' holds no recommendation ({type(error).__name__} in ranking.json): give the output folder of "
            "advisor recommend."
        ) from error
    if not pick:
        raise UsageError(
            f"The recommendation in '{folder}' picks no layer (verdict {found['verdict']['kind']}): name one with "
            "--layer."
        )
    return found


def task_of(recommendation: dict[str, Any]) -> Task:
    """The task of a recommendation. Raises `UsageError` where it used none (effort static)."""
    if not recommendation["task"]:
        raise UsageError("The recommendation used no task (effort static): name one with --task or --data.")
    return reload_task(recommendation["task"]["origin"])
