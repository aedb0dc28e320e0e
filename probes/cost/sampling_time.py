"""Seconds of drawing the completions of a step, on a few layers with random weights."""

from math import ceil

import numpy as np
import torch

from probes.cost.bench import PASS_FLOPS, REPEATS, Bench, Stub
from probes.cost.clock import LayerClock
from probes.noise import Noise
from probes.sampling import CachedModel, sample_completions

_ROWS = 16  # fewer do not fill the machine, so their time says little about more
_CACHE_BYTES = 1 << 31  # of keys and values, at most
_DRAWN = 6  # tokens timed


@torch.no_grad()
def time_sampling(bench: Bench) -> float:
    """Seconds in which a step's completions are drawn, as `probes.sampling.sample_completions` does: prompts read once,
    then one token of every completion at a time, with as many keys and values before it as there are on average.
    """
    stub = bench.stub(bench.sampling_layers)
    return _prompts(bench, stub) + _tokens(bench, stub)


def _prompts(bench: Bench, stub: Stub) -> float:
    shape, flops = bench.shape, _row_flops(bench) * bench.shape.prompt_tokens / bench.shape.length
    n_prompts = int(np.clip(PASS_FLOPS / flops, 1, shape.prompts_at_once))
    ids = torch.ones((n_prompts, shape.prompt_tokens), dtype=torch.long, device=stub.device)
    seconds = []
    for _ in range(1 + REPEATS):
        with LayerClock(stub.stack.layers, stub.device) as clock:
            CachedModel(stub, torch.ones_like(ids))(ids)
        seconds.append(clock.forward.sum() * _all_layers(bench) + clock.head[0])
    return float(np.median(seconds[1:])) * shape.prompts / n_prompts


def _tokens(bench: Bench, stub: Stub) -> float:
    shape = bench.shape
    width = bench.config.get_text_config().hidden_size
    row_bytes = 2 * width * bench.dtype.itemsize * len(stub.stack) * shape.length
    most = min(PASS_FLOPS * shape.length / _row_flops(bench), _CACHE_BYTES / row_bytes)
    at_once = shape.prompts_at_once * shape.group_size
    rows = min(at_once, max(_ROWS, int(most)))
    before = shape.prompt_tokens + shape.max_new_tokens // 2 - _DRAWN // 2
    if stub.context_length:
        before = min(before, stub.context_length - _DRAWN - 2)
    stamps, inside = [], []
    with LayerClock(stub.stack.layers, stub.device) as clock:

        def on_token(_: int) -> None:
            stamps.append(clock.now())
            inside.append(float(clock.forward.sum()))

        sample_completions(
            stub,
            [[1] * max(1, before)],
            rows,
            max_new_tokens=_DRAWN + 2,
            temperature=1.0,
            noise=Noise(stub.device, 0, 0),
            on_token=on_token,
        )
    whole, layers = np.diff(stamps)[1:], np.diff(inside)[1:]
    token = float(np.median(whole - layers) + np.median(layers) * _all_layers(bench))
    calls = ceil(shape.rows / at_once) if rows == at_once else shape.rows / rows
    return token * shape.max_new_tokens * calls


def _row_flops(bench: Bench) -> float:
    """Operations of the stub's forward pass over one row of full length."""
    work = bench.one_row()
    return work.head_forward + work.forward[: bench.sampling_layers].sum()


def _all_layers(bench: Bench) -> float:
    """The work of all layers over that of the stub's."""
    work = bench.one_row()
    return float(work.forward.sum() / work.forward[: bench.sampling_layers].sum())
