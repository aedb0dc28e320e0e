"""From a model and a task to a recommendation."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from advisor.decision import Verdict, judge_prediction, judge_race, judge_table
from advisor.predicting import find_predictor, predict
from advisor.recommendation import Recommendation
from advisor.survey import Options, Survey, survey
from advisor.warming import Warmup
from calibration.depth_prior import depth_prior
from probes.progress import Progress
from probes.rollouts import SamplingConfig
from probes.table import varies
from probes.tasks import Task


def recommend(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | str | None = None,
    *,
    effort: str = "probe",
    decoding: str = "greedy",
    sampling: SamplingConfig | None = None,
    warmup: Warmup | None = None,
    predictor: str | Path | None = None,
    layers: int = 1,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    output_dir: str | Path | Callable[[dict[str, Any]], Path] | None = None,
    progress: Progress | None = None,
) -> Recommendation:
    """Which layer of `model` to train on `task`, with the evidence.

    `model` is a loaded transformers model (then with its tokenizer, and left exactly as found) or a name as on the
    command line. `task` is a `Task`, the name of a built-in one, or None for the default. With `output_dir` finished
    work and reports are written there, and a run that was stopped goes on. Cost: about one RL step at effort "probe",
    one reading of the weights at "static", a few per cent of a sweep at "warmup" (see `Warmup`). `predictor` is what
    `advisor calibrate` wrote, the folder or one of its files; None is the one that comes with the advisor. `layers` is
    how many layers the pick is to have. Raises `UsageError` for bad input, `RunError` where the run breaks.
    """
    place = (device, dtype, trust_remote_code)
    options = Options(effort, decoding, sampling or SamplingConfig(), None, *place, warmup, predictor, layers)
    find_predictor(effort, decoding, predictor)  # raises for one that does not fit, before anything slow
    found = survey(model, tokenizer, task, options, output_dir, progress)
    with found.folder or nullcontext():
        result = _conclude(found)
        if found.folder is not None:
            result.report(found.folder.path)
    return result


def _conclude(found: Survey) -> Recommendation:
    options, table = found.options, found.table
    options.check_pick(table.n_layers)
    verdict = found.verdict or judge_table(table) or (found.race and judge_race(found.race))
    predicted = None
    if verdict is None:
        predictor = find_predictor(options.effort, options.decoding, options.predictor)
        predicted = predict(predictor, table, found.race, found.step_costs)
        verdict = judge_prediction(predicted, found.race)
    baselines = _baselines(found)
    sampling = options.sampling
    protocol = {"algorithm": "GRPO", "decoding": options.decoding}
    if found.rollouts is not None:
        if found.race is not None:
            protocol |= {"warmup": options.warmup.as_dict()}
        protocol |= {
            "temperature": sampling.temperature,
            "group_size": sampling.group_size,
            "max_new_tokens": found.rollouts.max_new_tokens,
            "prompt_style": sampling.prompt_style,
            "seed": sampling.seed,
        }
    return Recommendation(
        model=found.model,
        task=found.task
        and {
            "name": found.task.name,
            "reward": found.task.reward_name,
            "train_prompts": len(found.task.train),
            "held_out_prompts": len(found.task.held_out),
            "origin": found.task.origin,
        },
        protocol=protocol,
        effort=options.effort,
        verdict=verdict,
        pick=sorted(predicted.prediction.order[: options.n_picked]) if predicted else [],
        fallback=None if verdict.has_ranking else _fallback(verdict, baselines, options.decoding),
        baselines=baselines,
        reward=_reward_facts(found),
        cost={
            "seconds": {name: round(value, 3) for name, value in found.seconds.items()},
            "peak_memory_bytes": found.peak_memory,
            "completion_tokens": found.rollouts.n_tokens if found.rollouts else 0,
        },
        table=table,
        columns={c.name: c for p in found.probes for c in p.columns},
        predicted=predicted,
        folder=found.folder and found.folder.path,
        race=found.race,
        begun=found.finalists.get(predicted.prediction.order[0]) if predicted else None,
        known=found.known,
        step_costs=found.step_costs,
    )


def _baselines(found: Survey) -> dict[str, int]:
    """What simpler rules would pick."""
    n = found.table.n_layers
    prior = depth_prior(n, found.options.decoding)
    baselines = {"middle": n // 2, "depth_prior": int(prior.argmax()), "first": 0, "last": n - 1}
    for name in ("grad_norm", "relative_grad_norm", "fisher", "spectral_snr", "block_influence"):
        values = found.table.columns.get(name)
        if values is not None and varies(values):
            baselines[f"largest_{name}"] = int(values.argmax())
    return baselines


def _fallback(verdict: Verdict, baselines: dict[str, int], decoding: str) -> dict[str, Any] | None:
    if verdict.kind == "no_headroom":
        return {"layer": None, "why": "no layer can bring a gain here"}
    why = {
        "greedy": "the published profile of contribution over depth is highest there",
        "sampled": "under sampled scoring later layers gain more, since they sharpen the distribution",
    }[decoding]
    return {"layer": baselines["depth_prior"], "why": f"by position alone: {why}"}


def _reward_facts(found: Survey) -> dict[str, Any] | None:
    rollouts = found.rollouts
    if rollouts is None:
        return None
    rewards, held_out = rollouts.rewards, found.headroom
    return {
        "completions": rollouts.n_completions,
        "unscored": rollouts.n_completions - len(rewards),
        "mean": float(rewards.mean()) if len(rewards) else None,
        "max_possible": found.task.max_reward,
        "groups": len(rollouts.groups),
        "groups_with_spread": len(rollouts.informative),
        "share_without_spread": rollouts.share_without_spread,
        "group_means": [_mean(group.rewards) for group in rollouts.groups],
        "share_cut": rollouts.share_cut,
        "held_out_mean": float(held_out.mean()) if held_out is not None and len(held_out) else None,
        "held_out_n": 0 if held_out is None else len(held_out),
        "held_out_standard_error": _standard_error(held_out),
        "examples": [
            {"prompt": group.row["prompt"], "completion": group.completions[j], "reward": _or_none(group.rewards[j])}
            for group in rollouts.informative[:3]
            for j in (int(group.advantages.argmax()), int(group.advantages.argmin()))
        ],
    }


def _mean(rewards: np.ndarray) -> float | None:
    return None if np.isnan(rewards).all() else float(np.nanmean(rewards))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _standard_error(values: np.ndarray | None) -> float | None:
    return None if values is None or len(values) < 2 else float(values.std(ddof=1) / len(values) ** 0.5)
