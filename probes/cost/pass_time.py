"""Seconds of forward, backward and the optimiser's step, on a few layers with random weights."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from probes.cost.arms import Arm, set_up
from probes.cost.bench import REPEATS, Bench, Stub
from probes.cost.clock import LayerClock
from probes.cost.counting import predict
from probes.cost.shape import StepShape
from probes.log_probs import token_log_probs
from probes.training.checkpointing import checkpointed
from probes.training.config import TrainingConfig
from probes.training.optimizer import MasterAdamW

_MOST_PARAMETERS = 150e6  # more are not stepped for the clock: an optimiser's time is proportional to them


@dataclass(frozen=True)
class PassSeconds:
    """Seconds of all passes of a step, and of the optimiser for each trained parameter."""

    forward: float
    backward: float
    optimizer_per_parameter: float


@dataclass(frozen=True)
class _Measured:
    """Seconds of one pass over the stub: outside the layers, in the lowest layer, in all others."""

    head: tuple[float, float]
    lowest: tuple[float, float]
    upper: tuple[float, float]
    optimizer_per_parameter: float


def time_passes(bench: Bench, arms: Sequence[Arm]) -> list[PassSeconds]:
    """Seconds of each arm. Timed are passes that train everything, or the lowest of a few layers: its own time, and
    what leading the gradient through the frozen ones above takes. Where rows were cut, time is a line through two
    numbers of rows, since a gradient is stored once a pass, however many there are; layers and lengths are carried over
    by counted operations.
    """
    cut, n = bench.cut_pass(), bench.training_layers
    rows = bench.shape.pass_rows
    stub, whole = bench.stub(n), bench.work(bench.shape)
    small = bench.work(replace(cut, group_size=rows, rows_per_pass=rows))  # what the line below leads to
    ids = torch.ones((cut.group_size, cut.length), dtype=torch.long, device=stub.device)
    plain = _plain(stub, ids, cut) * rows / len(ids) / float(small.forward[:n].sum())
    kinds = dict.fromkeys(Arm() if arm.layer is None else Arm(0, arm.rank) for arm in arms)
    times = {kind: _measure(bench, stub, kind, ids, cut) for kind in kinds}
    outside = whole.head_forward / small.head_forward, whole.head_backward / small.head_backward

    def grown(seconds: float, done: np.ndarray, wanted: np.ndarray) -> float:
        return float(seconds * wanted.sum() / done.sum()) if len(done) else 0.0

    found = []
    for arm in arms:
        if arm.layer is None:
            t = times[Arm()]
            forward = grown(t.lowest[0] + t.upper[0], small.forward[:n], whole.forward)
            backward = grown(t.lowest[1] + t.upper[1], small.both[:n], whole.both)
        else:
            t, k = times[Arm(0, arm.rank)], arm.layer
            forward = plain * float(whole.forward[:k].sum())
            forward += grown(t.lowest[0], small.forward[:1], whole.forward[k : k + 1])
            forward += grown(t.upper[0], small.forward[1:n], whole.forward[k + 1 :])
            backward = grown(t.lowest[1], small.own[:1], whole.own[k : k + 1])
            backward += grown(t.upper[1], small.through[1:n], whole.through[k + 1 :])
        forward, backward = forward + t.head[0] * outside[0], backward + t.head[1] * outside[1]
        passes = bench.shape.passes
        found.append(PassSeconds(forward * passes, backward * passes, t.optimizer_per_parameter))
    return found


@torch.no_grad()
def _plain(stub: Stub, ids: torch.Tensor, shape: StepShape) -> float:
    """Seconds in the layers when nothing is kept for backward."""
    seconds = []
    for _ in range(1 + REPEATS):
        with LayerClock(stub.stack.layers, stub.device) as clock:
            _log_probs(stub, ids, shape)
        seconds.append(clock.forward.sum())
    return float(np.median(seconds[1:]))


def _measure(bench: Bench, stub: Stub, arm: Arm, ids: torch.Tensor, shape: StepShape) -> _Measured:
    saving = checkpointed(stub, 0) if shape.gradient_checkpointing else nullcontext()
    n, clock = len(ids), LayerClock(stub.stack.layers, stub.device)
    with set_up(stub.model, arm) as trained, saving:
        update = MasterAdamW(trained, TrainingConfig()) if bench.optimizer == "adamw" else None
        pieces = _pieces(stub, ids, shape)
        if n < bench.shape.pass_rows:
            fewer = max(1, n // 2)
            slope = (pieces - _pieces(stub, ids[:fewer], shape)) / (n - fewer) if n > 1 else pieces
            pieces = pieces + np.maximum(slope, 0) * (bench.shape.pass_rows - n)
        if update:
            update.close()
        del update
        for parameter in trained:
            parameter.grad = None
        per_parameter = _update_time(trained, bench, clock)
    return _Measured(*(tuple(map(float, pieces[i : i + 2])) for i in (0, 2, 4)), per_parameter)


def _pieces(stub: Stub, ids: torch.Tensor, shape: StepShape) -> np.ndarray:
    """Forward and backward seconds outside the layers, in the lowest, and in all others, (6,)."""
    rows = []
    for _ in range(1 + REPEATS):  # gradients add up, as they do over the passes of a step
        with LayerClock(stub.stack.layers, stub.device) as clock:
            loss = _log_probs(stub, ids, shape).sum()
            clock.begin_backward()
            loss.backward()
        del loss
        forward, backward = clock.forward, clock.backward
        rows.append([*clock.head, forward[0], backward[0], forward[1:].sum(), backward[1:].sum()])
    return np.median(rows[1:], 0)


def _update_time(trained: list[nn.Parameter], bench: Bench, clock: LayerClock) -> float:
    """Seconds of clipping and the optimiser's step for each parameter, moments being there already."""
    sizes = np.cumsum([p.numel() for p in trained])
    some = trained[: max(1, int((sizes <= _MOST_PARAMETERS).sum()))]
    seconds = []
    adam = MasterAdamW(some, TrainingConfig()) if bench.optimizer == "adamw" else None
    plain = torch.optim.SGD(some, lr=1e-6) if adam is None else None
    for _ in range(1 + REPEATS):
        for parameter in adam.masters if adam else some:
            parameter.grad = torch.full_like(parameter, 1e-3)
        start = clock.now()
        if adam:
            adam.step(1e-6)
        else:
            nn.utils.clip_grad_norm_(some, 1.0)
            plain.step()
            plain.zero_grad(set_to_none=True)
        seconds.append(clock.now() - start)
    if adam:
        adam.close()
    return float(np.median(seconds[1:])) / sum(p.numel() for p in some)


def _log_probs(stub: Stub, ids: torch.Tensor, shape: StepShape) -> torch.Tensor:
    """Log-probabilities of the completion tokens, (N,)."""
    logits, source = predict(stub.model, ids, shape.prompt_tokens)
    return token_log_probs(logits, source, torch.zeros_like(source), 1.0)
