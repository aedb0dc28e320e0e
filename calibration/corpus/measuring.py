"""What one policy-task pair adds to the corpus: contributions of all layers, and what the cheap efforts would see.

Layers are trained together (`probes.training.joint`). The first seed tries every rate; held-out prompts are answered,
and the other seeds are trained, only at the rates that validation prompts choose under either decoding.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from calibration.protocol import Protocol, Split
from calibration.race import ANSWERS, EXPECTED, score_arms
from calibration.runs import Run, arm_name, final_reward, perform, plain
from calibration.sweep import Sweep
from probes.errors import NotFiniteError
from probes.measure import measure
from probes.policy import Policy
from probes.registry import DECODINGS, list_probes
from probes.rollouts import Group, SamplingConfig, collect_rollouts
from probes.scoring import score_policy
from probes.tasks.task import Row, Task
from probes.training.expected import expected_rewards, know
from probes.training.joint import Arm, JointTrainer

WARMUP_STEPS = (4, 8)  # after which the warm-ups are scored
WARMUP_PROMPTS = 256
_WARMUP_SEED = 101  # apart from those of the sweeps


def measure_arm(
    policy: Policy,
    task: Task,
    split: Split,
    protocol: Protocol,
    base: dict[str, Any],
    layers: tuple[int, ...] | None,
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Runs of one arm, one after another: every rate with the first seed, the others at the rates chosen under either
    decoding."""
    first, *others = protocol.seed_numbers
    records = {}
    for run in [Run(layers, first, rate) for rate in protocol.rates_of(arm_name(layers))]:
        records[run.key] = _short(perform(policy, task, split, protocol, run, score=expected_scores))
        yield run, records[run.key]
    for rate in sorted(chosen_rates(protocol, base, records, layers)):
        for run in [Run(layers, seed, rate) for seed in others]:
            yield run, _short(perform(policy, task, split, protocol, run, score=expected_scores))


def measure_layers(
    policy: Policy, task: Task, split: Split, protocol: Protocol, base: dict[str, Any]
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Single-layer runs of every layer, with records as `calibration.runs.perform` makes them.

    ``held_out`` is None for runs of the first seed at a rate that neither decoding chose, ``rewards`` replaces the
    curve, and ``seconds`` is an equal share.
    """
    first, *others = protocol.seed_numbers
    layers = range(policy.n_layers)
    arms = [(k, rate) for k in layers for rate in protocol.rates_of("layer")]
    searched: dict[str, dict[str, Any]] = {}

    def chosen(records: dict[str, dict[str, Any]]) -> list[Arm]:
        return [(k, rate) for k in layers for rate in sorted(chosen_rates(protocol, base, records, (k,)))]

    for run, record in _train(policy, task, split, protocol, first, arms, chosen):
        searched[run.key] = record
        yield run, record
    for seed in others:
        yield from _train(policy, task, split, protocol, seed, chosen(searched), lambda records: None)


def chosen_rates(
    protocol: Protocol, base: dict[str, Any], records: dict[str, dict[str, Any]], layers: tuple[int, ...] | None
) -> set[float]:
    """The rates that an arm's validation scores choose under either decoding."""
    found = {
        Sweep(replace(protocol, decoding=decoding), [layers], base, records).chosen_rate(layers)
        for decoding in DECODINGS
    }
    return found - {None}


def _train(
    policy: Policy,
    task: Task,
    split: Split,
    protocol: Protocol,
    seed: int,
    arms: Sequence[Arm],
    kept: Callable[[dict[str, dict[str, Any]]], list[Arm] | None],
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Train `arms` with one seed; only those that `kept` names (None: all) answer held-out prompts."""
    began, config = time.perf_counter(), protocol.config(seed, min(rate for _, rate in arms))
    with JointTrainer(policy, task, config, arms, rows=split.train) as trainer:
        sizes = {arm: sum(m.numel() for m in branch.optimizer.masters) for arm, branch in trainer.live.items()}
        while trainer.live and trainer.steps_done < config.steps:
            trainer.step()
        validation = _scores(trainer, split.validation, protocol)
        records = {}
        for layer, rate in arms:
            run, failure = Run((layer,), seed, rate), trainer.failures.get((layer, rate))
            record = {"arm": run.arm, "layers": [layer], "seed": seed, "rate": rate, "failed": failure and str(failure)}
            if failure is None:
                means = {name: plain(np.nanmean(found[layer, rate])) for name, found in validation.items()}
                record |= {"validation": means, "trained_parameters": sizes[layer, rate]}
            records[run.key] = record
        wanted = kept(records)
        trainer.drop([arm for arm in trainer.live if wanted is not None and arm not in wanted])
        held_out = _scores(trainer, split.held_out, protocol)
        seconds = (time.perf_counter() - began) / len(arms)
        for layer, rate in arms:
            run, curve = Run((layer,), seed, rate), trainer.curves.get((layer, rate), [])
            scored = (layer, rate) in trainer.live
            scores = {name: _short_numbers(found[layer, rate]) for name, found in held_out.items()} if scored else None
            rewards = [plain(step["reward"]) for step in curve]
            record = records[run.key] | {"held_out": scores, "rewards": rewards, "final_reward": final_reward(curve)}
            yield run, record | {"seconds": round(seconds, 3)}


def _scores(trainer: JointTrainer, rows: Sequence[Row], protocol: Protocol) -> dict[str, dict[Arm, np.ndarray]]:
    """Reward of each row's prompt by decoding and live arm; sampled ones as `expected_scores` takes them."""
    _, greedy = trainer.score(rows, decoding="greedy", seed=protocol.training.seed)
    _, sampled = trainer.expected(the_answers(trainer.policy, rows))
    return {"greedy": greedy, "sampled": sampled}


def expected_scores(
    policy: Policy, task: Task, split: Split, protocol: Protocol, max_new_tokens: int
) -> dict[str, Any]:
    """Scores of the policy as it is, in the form of `calibration.runs.score_both`.

    Sampled ones are not sampled: these tasks reward one answer and nothing else, so the expected reward is the
    probability of that answer, which one forward pass tells without noise. Greedy ones are answers. Raises
    `NotFiniteError`.
    """
    found: dict[str, Any] = {}
    for name, rows in (("validation", split.validation), ("held_out", split.held_out)):
        greedy = score_policy(policy, task, rows, decoding="greedy", max_new_tokens=max_new_tokens)
        sampled, _ = expected_rewards(policy, [], the_answers(policy, rows), protocol.training.temperature)
        if not np.isfinite(sampled).all():
            raise NotFiniteError
        found[name] = {"greedy": greedy, "sampled": sampled}
    return {
        "validation": {decoding: plain(np.nanmean(values)) for decoding, values in found["validation"].items()},
        "held_out": {decoding: _short_numbers(values) for decoding, values in found["held_out"].items()},
    }


def the_answers(policy: Policy, rows: Sequence[Row]) -> list[Group]:
    """The one rewarded completion of each row's prompt: its answer and the end."""
    tokenizer, end = policy.tokenizer, policy.eos_ids[0]
    return [
        Group(
            row,
            list(tokenizer(row["prompt"])["input_ids"]),
            [[*tokenizer(row["answer"])["input_ids"], end]],
            [row["answer"]],
            np.ones(1),
        )
        for row in rows
    ]


def _short_numbers(values: np.ndarray) -> list[float | None]:
    """Scores with three decimals: what rounding adds to the mean of hundreds of prompts is below 0.0001."""
    return [None if np.isnan(value) else round(float(value), 3) for value in values]


def measure_probes(policy: Policy, task: Task, protocol: Protocol) -> dict[str, Any]:
    """The layer table of every probe, on one batch of rollouts, as plain JSON."""
    began, training = time.perf_counter(), protocol.training
    config = SamplingConfig(
        group_size=training.group_size,
        temperature=training.temperature,
        max_new_tokens=training.max_new_tokens,
        prompt_style=training.prompt_style,
        seed=_WARMUP_SEED,
    )
    rollouts = collect_rollouts(policy, task, config)
    table = measure(list_probes("probe", shipped=True), policy=policy, rollouts=rollouts)
    return {
        "n_layers": table.n_layers,
        "columns": {name: [float(f"{v:.6g}") for v in values] for name, values in table.columns.items()},
        "failures": table.failures,
        "completions": rollouts.n_completions,
        "mean_reward": float(rollouts.rewards.mean()),
        "seconds": {
            **{name: round(value, 3) for name, value in table.seconds.items()},
            "total": round(time.perf_counter() - began, 3),
        },
    }


def measure_warmup(
    policy: Policy, task: Task, split: Split, protocol: Protocol, arms: Sequence[Arm] | None = None
) -> dict[str, Any]:
    """Warm-ups of all layers at all rates, or of `arms`, each on its own completions, scored at every rung.

    No arm is dropped, so any race (`calibration.race`) can be replayed on it: ``rungs`` hold the score of each
    validation prompt by decoding and arm ("layer,rate"), and of the base policy: the reward of its greedy answer, and
    its expected reward when it is sampled, over completions that the base policy has sampled (or of one sampled answer
    where too little is ``known``; ``scored_by`` tells). At the last rung ``sampled_answers`` has the mean rewards of
    one sampled answer of each arm, for comparison, which the ``total`` seconds leave out.
    """
    began = time.perf_counter()
    training = replace(protocol.training, steps=WARMUP_STEPS[-1], base_steps=0, seed=_WARMUP_SEED)
    arms = arms or [(k, rate) for k in range(policy.n_layers) for rate in protocol.learning_rates]
    rows, rungs = list(split.validation)[:WARMUP_PROMPTS], []
    seconds = dict.fromkeys(("known", "training", *DECODINGS, "sampled answers"), 0.0)
    with JointTrainer(policy, task, training, arms, rows=split.train) as trainer:
        known = know(policy, task, rows, trainer.config)
        by = {
            "greedy": ANSWERS,
            "sampled": EXPECTED if known.serves else ANSWERS,
        }  # greedy answers have no luck in them
        seconds["known"] = time.perf_counter() - began
        while trainer.live and trainer.steps_done < WARMUP_STEPS[-1]:
            at = time.perf_counter()
            trainer.step()
            seconds["training"] += time.perf_counter() - at
            if trainer.steps_done in WARMUP_STEPS:
                rung: dict[str, Any] = {"step": trainer.steps_done, "base": {}, "scores": {}}
                for decoding in DECODINGS:
                    at, used = time.perf_counter(), known if by[decoding] == EXPECTED else None
                    base, found = score_arms(trainer, rows, decoding, used, seed=_WARMUP_SEED)
                    seconds[decoding] += time.perf_counter() - at
                    rung["base"][decoding] = _short_numbers(base)
                    rung["scores"][decoding] = {f"{k},{rate:g}": _short_numbers(v) for (k, rate), v in found.items()}
                rungs.append(rung)
        at = time.perf_counter()
        if rungs and trainer.live:
            _, answers = trainer.score(rows, decoding="sampled", seed=_WARMUP_SEED)
            rungs[-1]["sampled_answers"] = {f"{k},{r:g}": plain(np.nanmean(v)) for (k, r), v in answers.items()}
        seconds["sampled answers"] = time.perf_counter() - at
        failures = {f"{k},{rate:g}": str(failure) for (k, rate), failure in trainer.failures.items()}
    seconds["total"] = time.perf_counter() - began - seconds["sampled answers"]
    return {
        "seed": _WARMUP_SEED,
        "known": round(known.share, 4),
        "scored_by": by,
        "rungs": rungs,
        "failures": failures,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record without what the corpus has no use for."""
    kept = {name: value for name, value in record.items() if name not in ("curve", "peak_memory_bytes")}
    kept["rewards"] = [step["reward"] for step in record["curve"]]
    kept["seconds"] = round(record["seconds"], 3)
    return {"held_out": None, **kept}
