"""How long each stage will take, guessed before it starts, so that progress has a time left from the first second."""

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from probes.packaged import NAME, cache_dir

if TYPE_CHECKING:
    from advisor.warming import Warmup
    from calibration.protocol import Protocol

PROMPT_TOKENS, NEW_TOKENS = 48, 24  # typical of short answers; corrected while the run goes on
_EFFICIENCY = 0.7  # of that product's speed, seen in a whole forward pass on a CPU
_UNKNOWN_PARAMETERS = 1e9


def guess_parameters(model: str) -> float:
    """Parameters of a model by name from its file sizes at two bytes each; a billion where no file is found yet."""
    path = cache_dir() / NAME if model == NAME else Path(model).expanduser()
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files) / 2 or _UNKNOWN_PARAMETERS


def forecast(
    n_parameters: float,
    effort: str,
    *,
    groups: int,
    group_size: int,
    max_prompts: int,
    max_new_tokens: int | None,
    **_others,
) -> dict[str, float]:
    """Seconds by stage, in order, for a model of `n_parameters` and a sampling configuration's fields.

    Needs no torch, so that the command line can show a time left before torch is loaded.
    """
    weights = 1 + n_parameters / 1e8 * 4 if n_parameters < 1e9 else 30 + n_parameters / 1e9 * 8
    if effort == "static":
        return {"start": 4.0, "probe depth": 0.1, "probe weights": weights}
    per_token = 2 * n_parameters / (_speed() * _EFFICIENCY)
    drawn = min(max_prompts, 2 * groups)
    new_tokens = max_new_tokens or NEW_TOKENS
    row = PROMPT_TOKENS + group_size * new_tokens
    return {
        "start": 4.0,
        "load the policy": 1 + n_parameters / 1e9,
        "see how long answers are": 0.0 if max_new_tokens else 8 * row * per_token * 2,
        "sample rollouts": drawn * row * per_token,
        "score held-out prompts": 64 * (PROMPT_TOKENS + new_tokens) * per_token,
        "probe depth": 0.1,
        "probe weights": weights,
        "probe activations": groups * row * per_token * 2,
        "probe gradients": groups * row * per_token * 2.5,
        "probe attribution": groups * row * per_token * 2.5,
    }


def forecast_training(
    n_parameters: float, protocol: "Protocol", max_new_tokens: int | None, n_arms: int
) -> dict[str, float]:
    """Seconds by stage of a verification or sweep with about `n_arms` arms (see `forecast`)."""
    from calibration.sweep import count_runs

    training = protocol.training
    per_token = 2 * n_parameters / (_speed() * _EFFICIENCY)
    new_tokens = max_new_tokens or NEW_TOKENS
    row = PROMPT_TOKENS + training.group_size * new_tokens
    step = training.prompts_per_step * row * per_token * 4  # sampling, forward, and most of a backward pass
    answers = 1 + protocol.sampled_completions
    scoring = (protocol.held_out + protocol.validation) * (2 * PROMPT_TOKENS + answers * new_tokens) * per_token
    return {
        "start": 4.0,
        "load the policy": 1 + n_parameters / 1e9,
        "see how long answers are": 0.0 if max_new_tokens else 8 * row * per_token * 2,
        "sample rollouts": 16 * row * per_token,
        "score the base policy": scoring,
        "train": count_runs(protocol, n_arms) * (training.steps * step + scoring),
    }


def forecast_warmup(
    n_parameters: float, warmup: "Warmup", max_new_tokens: int | None, n_layers: int
) -> dict[str, float]:
    """Seconds of the race of a model with `n_layers` layers (see `forecast`)."""
    training, rules = warmup.protocol.training, warmup.rules
    per_token = 2 * n_parameters / (_speed() * _EFFICIENCY)
    row = PROMPT_TOKENS + training.group_size * (max_new_tokens or NEW_TOKENS)
    step = training.prompts_per_step * row * per_token * (1.5 if warmup.on_base else 3.0)
    scoring = rules.prompts * (PROMPT_TOKENS + (max_new_tokens or NEW_TOKENS)) * per_token
    arms, before, total = float(n_layers * len(warmup.rates)), 0, 0.0
    for index, rung in enumerate(rules.rungs):
        total += arms * ((rung - before) * step + scoring)
        arms, before = max(1.0, arms * rules.keep / (len(warmup.rates) if index == rules.rate_rung else 1)), rung
    return {"warm up all layers": total if warmup.budget is None else min(total, warmup.budget)}


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@cache
def _speed() -> float:
    """Floating-point operations a second of a matrix product here, the best of several."""
    import numpy as np

    a = np.ones((768, 768), np.float32)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * 768**3 / best
