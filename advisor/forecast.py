"""How long each stage will take, guessed before it starts, so that progress has a time left from the first second."""

import time

from probes.policy import ModelFiles
from probes.rollouts import SamplingConfig

_PROMPT_TOKENS, _NEW_TOKENS = 48, 24  # typical of short answers; corrected while the run goes on
_EFFICIENCY = 0.7  # of that product's speed, seen in a whole forward pass on a CPU


def forecast(
    files: ModelFiles | None, n_parameters: int | None, effort: str, sampling: SamplingConfig
) -> dict[str, float]:
    """Seconds by stage, in order. The number of parameters is taken from the file sizes where it is not known."""
    if n_parameters is None:
        paths = [files.path] if files.is_gguf else list(files.path.glob("*.safetensors"))
        n_parameters = sum(p.stat().st_size for p in paths) / 2
    weights = 1 + n_parameters / 1e8 * 4 if n_parameters < 1e9 else 30 + n_parameters / 1e9 * 8
    if effort == "static":
        return {"probe depth": 0.1, "probe weights": weights}
    per_token = 2 * n_parameters / (_speed() * _EFFICIENCY)
    drawn = min(sampling.max_prompts, 2 * sampling.groups)
    new_tokens = sampling.max_new_tokens or _NEW_TOKENS
    row = _PROMPT_TOKENS + sampling.group_size * new_tokens
    return {
        "load the policy": 1 + n_parameters / 1e9,
        "see how long answers are": 0.0 if sampling.max_new_tokens else 8 * row * per_token * 2,
        "sample rollouts": drawn * row * per_token,
        "score held-out prompts": 64 * (_PROMPT_TOKENS + new_tokens) * per_token,
        "probe depth": 0.1,
        "probe weights": weights,
        "probe activations": sampling.groups * row * per_token * 2,
        "probe gradients": sampling.groups * row * per_token * 2.5,
        "probe attribution": sampling.groups * row * per_token * 2.5,
    }


def _speed() -> float:
    """Floating-point operations a second of a matrix product here, the best of several."""
    import torch

    a = torch.ones(768, 768)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - start)
    return 2 * 768**3 / best
