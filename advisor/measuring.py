"""From a model, a task and some arms to measured contributions: the part that `verify` and `sweep` share."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import floor
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from advisor.contributions import Contributions, roles_of
from advisor.decision import MIN_GROUPS, Verdict, judge_base, judge_reward
from advisor.forecast import forecast_training
from advisor.measuring_options import MeasuringOptions
from advisor.processes import SharedMemory, agreed, is_first, n_processes
from advisor.store import RunFolder
from advisor.subject import Subject
from calibration.contribution import interval_width, prompts_needed
from calibration.protocol import Split, split_task
from calibration.runs import Run, arm_name, make_trainer, perform, score_both
from calibration.sweep import Sweep, count_runs, measure_contributions
from calibration.workers import WorkOrder, in_processes, on_ray
from probes.errors import UsageError
from probes.memory import Memory
from probes.policy import Policy
from probes.progress import Progress
from probes.rollouts import SamplingConfig, collect_rollouts
from probes.tasks import Task, load_task, reload_task
from probes.training.in_place import check_layers, trained_parameters
from probes.training.state import TrainingState, setting_of

_CHECKED_PROMPTS = 64  # looked at for reward spread before anything is trained
_SCORING_STEPS = 1.0  # scoring both decodings, in steps of training; only for the time left

Arms = list[tuple[str, tuple[int, ...] | None]]  # (role, layers); layers None is full-parameter training
OutputDir = str | Path | Callable[[dict[str, Any]], Path] | None


def measure_arms(
    kind: str,
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | str | None,
    arms_of: Callable[[int], Arms],
    judge: Callable[[Contributions], Verdict],
    options: MeasuringOptions,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
    asked: dict[str, Any] | None = None,
    start: TrainingState | None = None,
) -> Contributions:
    """Train and score every arm; cheap checks come before anything slow.

    `arms_of` says which layers play which role in a stack of so many layers, `judge` the verdict, `asked` is what else
    tells this run from others. The run that `start` is the beginning of goes on from there. Reports are written where
    there is an `output_dir`. Raises `UsageError` for bad input and `RunError` where the run breaks; a given model is as
    found afterwards.
    """
    progress = progress or Progress()
    subject, task, split = begin_measuring(model, tokenizer, task, arms_of, options, progress)
    progress.plan(forecast_measuring(subject, subject.n_parameters, arms_of, options))
    identity = identity_of(kind, subject, task, options, asked or {})
    target = output_dir(identity) if callable(output_dir) else output_dir
    folder = RunFolder(target, identity) if target is not None and is_first() else None
    with folder or nullcontext():
        if folder and folder.resumed:
            progress.note(f"going on with the run in {folder.path}")
        memory = SharedMemory(folder or Memory()) if n_processes() > 1 else folder or Memory()
        measuring = _Measuring(kind, subject, task, split, options, memory, folder, progress, start)
        result = measuring.run(arms_of, judge)
        if folder is not None:
            result.report(folder.path)
    return result


def begin_measuring(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | str | None,
    arms_of: Callable[[int], Arms],
    options: MeasuringOptions,
    progress: Progress,
    weights: bool = True,
) -> tuple[Subject, Task, Split]:
    """Model and task, found and checked and not loaded; without its `weights` a model is not even fetched."""
    protocol = options.protocol
    task = load_task(task, seed=protocol.training.seed) if isinstance(task, str | None) else task
    split = split_task(task, protocol)
    check_held_out(split, options.interval_width)
    place = {"device": options.device, "dtype": options.dtype, "trust_remote_code": options.trust_remote_code}
    subject = Subject(model, tokenizer, **place, progress=progress, weights=weights)
    if options.in_workers:
        if subject.files is None:
            raise UsageError("A model in memory cannot be sent to workers: give it by name or folder, or workers=1.")
        reload_task(task.origin)  # raises where the task cannot travel
    for _, layers in arms_of(subject.n_layers):
        if layers:  # not all parameters, nor a pick that is not known yet
            check_layers(layers, subject.n_layers)
    return subject, task, split


def forecast_measuring(
    subject: Subject, n_parameters: float, arms_of: Callable[[int], Arms], options: MeasuringOptions
) -> dict[str, float]:
    """Seconds by stage."""
    arms = {layers for _, layers in arms_of(subject.n_layers)}
    seconds = forecast_training(n_parameters, options.protocol, options.max_new_tokens, len(arms))
    if options.budget is not None:
        others = sum(seconds.values()) - seconds["train"]
        seconds["train"] = min(seconds["train"], max(0.0, options.budget - others))
    return seconds


class _Measuring:
    """One run of `measure_arms`, stage by stage."""

    def __init__(
        self,
        kind: str,
        subject: Subject,
        task: Task,
        split: Split,
        options: MeasuringOptions,
        memory: Memory,
        folder: RunFolder | None,
        progress: Progress,
        start: TrainingState | None,
    ) -> None:
        self.begun = start
        self.kind, self.subject, self.task, self.split, self.options = kind, subject, task, split, options
        self.memory, self.folder, self.progress = memory, folder, progress
        self.protocol = options.protocol
        self.key = task.reward_fingerprint()[:8] + ", "
        self.start = time.perf_counter()
        self.recalled_seconds, self.n_begun = 0.0, 0

    def run(self, arms_of: Callable[[int], Arms], judge: Callable[[Contributions], Verdict]) -> Contributions:
        policy = self.subject.policy(self.progress)
        arms = arms_of(policy.n_layers)
        for _, layers in arms:
            trained_parameters(policy, layers)  # raises for what cannot be trained
        verdict = agreed(self._look_at_rewards(policy))
        base = sweep = saved = None
        if verdict is None:
            base, scoring = self._score_base(policy)
            scores = base["held_out"][self.protocol.decoding]
            verdict = judge_base(scores, self.protocol.decoding, self.task.max_reward)
        distinct = list(dict.fromkeys(layers for _, layers in arms))
        if verdict is None:
            if self.options.budget is not None:
                self._fit_budget(policy, distinct, scoring)
            self._look_at_begun(policy)
            pick = dict(arms).get("pick") if self.folder else None
            sweep = self._train(policy, distinct, pick, base)
            saved = self._keep_best(sweep, pick)
        result = Contributions(
            kind=self.kind,
            model=self.subject.facts(),
            task={
                "name": self.task.name,
                "reward": self.task.reward_name,
                "train_prompts": len(self.split.train),
                "validation_prompts": len(self.split.validation),
                "held_out_prompts": len(self.split.held_out),
                "origin": self.task.origin,
            },
            protocol=self.protocol.as_dict(),
            reference=self.options.reference,
            verdict=verdict or Verdict("measured", ""),
            roles=roles_of(arms),
            base=base,
            sweep=sweep,
            cost={"seconds": self._whole_cost()},
            folder=self.folder and self.folder.path,
            saved=saved,
        )
        return result if verdict else replace(result, verdict=judge(result))

    def _look_at_rewards(self, policy: Policy) -> Verdict | None:
        """How long answers are, and whether the base policy's completions differ in reward at all."""
        training = self.protocol.training
        config = SamplingConfig(
            groups=MIN_GROUPS,
            group_size=training.group_size,
            max_prompts=_CHECKED_PROMPTS,
            temperature=training.temperature,
            max_new_tokens=self.options.max_new_tokens,
            prompt_style=training.prompt_style,
            seed=training.seed,
        )
        task = replace(self.task, train=self.split.train, held_out=[])
        rollouts = collect_rollouts(policy, task, config, self.progress, self.memory)
        self.protocol = replace(self.protocol, training=replace(training, max_new_tokens=rollouts.max_new_tokens))
        return judge_reward(rollouts, None, self.protocol.decoding, self.task.max_reward)

    def _score_base(self, policy: Policy) -> tuple[dict[str, Any], float]:
        """The base policy's record, and the seconds that scoring takes."""
        found = self.memory.recall("base", self.key)
        if found is None:
            self.progress.begin("score the base policy", 1)
            start = time.perf_counter()
            record = score_both(policy, self.task, self.split, self.protocol, self.protocol.training.max_new_tokens)
            found = agreed({"record": record, "seconds": time.perf_counter() - start})
            self.memory.keep("base", self.key, found)
            self.progress.advance()
        return found["record"], found["seconds"]

    def _fit_budget(self, policy: Policy, arms: Sequence[tuple[int, ...] | None], scoring: float) -> None:
        """Take as many steps as the budget allows, judged by one step of each arm (tried and undone)."""
        steps = self.memory.recall("steps", self.key)
        if steps is None:
            self.progress.begin("time one step of each arm", len(arms))
            config = replace(self.protocol.training, steps=1, learning_rate=min(self.protocol.learning_rates))
            seconds = []
            for layers in arms:
                options = self.options.engine_options
                with make_trainer(policy, self.task, self.split, self.protocol, layers, config, options) as trainer:
                    seconds.append(trainer.run()[0].seconds)
                self.progress.advance()
            n_runs = count_runs(self.protocol, len(arms))
            spent = time.perf_counter() - self.start
            # Workers on one machine share its cores, so what they gain is not counted on.
            left = self.options.budget - spent - n_runs * scoring
            possible = agreed(floor(left / (n_runs * sum(seconds) / len(seconds))))
            if possible < 1:
                least = spent + n_runs * (scoring + sum(seconds) / len(seconds))
                raise UsageError(
                    f"The budget of {self.options.budget:.0f} s is too small for one step of each of the {n_runs} "
                    f"runs: that takes about {least:.0f} s. Raise --budget, or use fewer --seeds or --learning-rates."
                )
            steps = min(possible, self.protocol.training.steps)
            self.memory.keep("steps", self.key, steps)
        training = self.protocol.training
        warmup = training.warmup_steps if steps == training.steps else min(training.warmup_steps, steps // 5)
        self.protocol = replace(self.protocol, training=replace(training, steps=steps, warmup_steps=warmup))
        self.progress.note(f"the budget allows {steps} steps a run")

    def _look_at_begun(self, policy: Policy) -> None:
        """Say whether the warm-up's training goes on; it does where it is the beginning of a run of this protocol."""
        if self.begun is None:
            return
        begun = self.begun.config
        config = self.protocol.config(begun.seed, begun.learning_rate)
        setting = setting_of(policy, self.task, self.split.train)
        arm = arm_name(self.begun.layers)
        if begun.seed in self.protocol.seed_numbers and self.begun.fits(self.begun.layers, config, setting):
            self.progress.note(f"the training of {arm} goes on from step {self.begun.steps_done} of its warm-up")
        else:
            self.progress.note(f"{arm} begins anew: its warm-up was made with other settings, data or weights")
            self.begun = None

    def _train(
        self,
        policy: Policy,
        arms: Sequence[tuple[int, ...] | None],
        kept: tuple[int, ...] | None,
        base: dict[str, Any],
    ) -> Sweep:
        steps = self.protocol.training.steps + _SCORING_STEPS

        def recalled(record: dict[str, Any]) -> None:
            self.recalled_seconds += record["seconds"]
            self.n_begun += 1
            self.progress.advance(steps)

        self.progress.begin("train", count_runs(self.protocol, len(arms)) * steps)
        return measure_contributions(
            self.protocol,
            arms,
            base,
            self._workers(policy, kept, steps, len(arms)),
            memory=self.memory,
            on_recalled=recalled,
            key=self.key,
        )

    def _workers(self, policy: Policy, kept: tuple[int, ...] | None, steps: float, n_arms: int) -> Callable:
        """Performs runs here, in a pool or on Ray; trained weights of the arm `kept` are saved."""
        options, total = self.options, count_runs(self.protocol, n_arms)

        def here(runs: Sequence[Run]):
            for run in runs:
                self.n_begun += 1
                self.progress.note(f"run {self.n_begun} of {total}: {run.key}")
                record = perform(
                    policy,
                    self.task,
                    self.split,
                    self.protocol,
                    run,
                    save_to=self._file_of(run) if kept is not None and run.layers == kept else None,
                    on_step=self.progress.advance,
                    engine_options=options.engine_options,
                    start=self.begun,
                )
                yield run, agreed(record)
                self.progress.advance(_SCORING_STEPS)

        def elsewhere(runs: Sequence[Run]):
            local = options.ray in (None, "local")
            order = WorkOrder(
                model=self._model_elsewhere(),
                device=policy.device.type if options.device == "auto" else options.device,
                dtype=options.dtype,
                trust_remote_code=options.trust_remote_code,
                task_origin=json.dumps(self.task.origin),
                task_fingerprint=self.task.fingerprint(),
                protocol=self.protocol,
                threads=max(1, (os.cpu_count() or 1) // options.workers) if local else 1,
                saved={run.key: str(self._file_of(run)) for run in runs if kept is not None and run.layers == kept},
            )
            address = None if options.ray == "local" else options.ray
            work = on_ray(address, options.workers) if options.ray else in_processes(options.workers)
            with tempfile.TemporaryDirectory() as place:
                if self.begun is not None:
                    file = Path(place) / "begun.safetensors"
                    self.begun.save(file)
                    order = replace(order, start=str(file))
                for run, record in work(order, runs):
                    self.progress.advance(steps)
                    yield run, record

        return elsewhere if options.in_workers else here

    def _model_elsewhere(self) -> str:
        """The model's name as other processes find it, whatever folder they are in."""
        name = self.subject.files.name
        path = Path(name).expanduser()
        return str(path.resolve()) if path.exists() else name

    def _file_of(self, run: Run) -> Path:
        name = f"{run.arm.replace(' ', '-')}-seed-{run.seed}-rate-{run.learning_rate:g}.safetensors"
        return self.folder.path.resolve() / "trained" / name

    def _keep_best(self, sweep: Sweep, pick: tuple[int, ...] | None) -> Path | None:
        """Of the pick's runs, keep the weights of the one that scores best on validation prompts."""
        if pick is None:
            return None
        final = self.folder.path / "trained" / f"{arm_name(pick).replace(' ', '-')}.safetensors"
        good = [r for r in sweep.runs_of(pick) if r["failed"] is None]
        if not good:
            return None
        best = max(good, key=lambda r: r["validation"][self.protocol.decoding])
        found = self._file_of(Run(pick, best["seed"], best["rate"]))
        if found.exists():
            shutil.move(found, final)
        elif not final.exists():
            self.progress.note(f"the trained layer is not here: look for {found} on the machine that trained it")
        for other in final.parent.glob(f"{final.stem}-seed-*.safetensors"):
            other.unlink()
        return final if final.exists() else None

    def _whole_cost(self) -> float:
        """Seconds of the whole run when it was first finished, those of runs that an earlier process did included."""
        seconds = self.memory.recall("cost", self.key)
        if seconds is None:
            seconds = round(time.perf_counter() - self.start + self.recalled_seconds, 3)
            self.memory.keep("cost", self.key, seconds)
        return seconds


def check_held_out(split: Split, width: float) -> None:
    """Raise `UsageError` where the held-out prompts are too few for intervals of this width, with how many it takes."""
    n, needed = len(split.held_out), prompts_needed(width)
    if n < needed:
        raise UsageError(
            f"{n} held-out prompts are too few: a score's 90 % interval would be up to {interval_width(max(1, n)):.2f} "
            f"wide (for rewards from 0 to 1); a width of {width:g} takes {needed} prompts, 0.2 takes "
            f"{prompts_needed(0.2)}, 0.1 takes {prompts_needed(0.1)}. Give more data, or a larger --interval-width."
        )


def identity_of(
    kind: str, subject: Subject, task: Task, options: MeasuringOptions, asked: dict[str, Any]
) -> dict[str, Any]:
    """What makes two runs the same. The reward is left out: mending it must not lose the sampled completions."""
    protocol = options.protocol.as_dict() | {"max_new_tokens": options.max_new_tokens}
    return subject.identity() | {
        "kind": kind,
        "task": task.name,
        "task_origin": {k: v for k, v in task.origin.items() if k != "reward"},
        "task_fingerprint": task.fingerprint(),
        "protocol": protocol,
        "reference": options.reference,
        "budget": options.budget,
        "engine_options": options.engine_options,
        **asked,
    }
