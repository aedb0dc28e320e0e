"""What one RL step of a policy takes, by what is trained: parameters, memory and seconds, from its configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PretrainedConfig

from probes.cost.arms import Arm
from probes.cost.bench import Bench
from probes.cost.built import counted_model
from probes.cost.counting import OPTIMIZERS, PassCount, count_generation, count_pass
from probes.cost.layer_work import LayerWork, count_layers
from probes.cost.pass_time import time_passes
from probes.cost.sampling_time import time_sampling
from probes.cost.shape import StepShape
from probes.errors import unknown_name
from probes.stack import find_stack

_UPDATE_BYTES = 30  # moved by AdamW for a parameter in half precision; see `probes.cost.layer_work`


@dataclass(frozen=True)
class Seconds:
    """Seconds of one RL step by part."""

    generation: float
    forward: float
    backward: float
    optimizer: float

    @property
    def step(self) -> float:
        return self.generation + self.forward + self.backward + self.optimizer


@dataclass(frozen=True)
class Counted:
    """A policy and its step, counted: sizes in parameters and bytes, operations by layer, and one pass of each arm.

    ``cache_bytes`` are keys and values when completions are longest, ``sampling_bytes`` the most that sampling takes
    beside the weights, the cache included.
    """

    config: PretrainedConfig
    shape: StepShape
    dtype: torch.dtype
    optimizer: str
    trust_remote_code: bool
    layer_sizes: tuple[int, ...]
    parameters: int
    weight_bytes: int
    cache_bytes: int
    sampling_bytes: int
    arms: dict[Arm, PassCount]

    @property
    def n_layers(self) -> int:
        return len(self.layer_sizes)

    def peak_bytes(self, arm: Arm) -> int:
        """Weights, the optimiser's state, and whichever of sampling and training takes more beside them."""
        count = self.arms[arm]
        matrices = 0 if arm.rank is None else 4 * count.trainable  # LoRA's own, in float32
        return self.weight_bytes + matrices + count.optimizer + max(self.sampling_bytes, count.peak)


@dataclass(frozen=True)
class Machine:
    """A machine by what it achieves, not by its data sheet: operations and bytes a second."""

    flops: float
    bandwidth: float


def count_step(
    config: PretrainedConfig,
    arms: Sequence[Arm],
    shape: StepShape,
    *,
    dtype: torch.dtype,
    optimizer: str = "adamw",
    trust_remote_code: bool = False,
) -> Counted:
    """Count a step of each arm; no weights, no memory. Cost: about a second an arm for 30 layers.

    Raises `UsageError` for an optimiser, layer or length that is not there.
    """
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS, "Pass one of these as --optimizer.")
    with counted_model(config, dtype, trust_remote_code) as model:
        for arm in arms:
            arm.check(find_stack(model))
        cache, sampling = count_generation(model, shape)
        weights = [*model.parameters(), *model.buffers()]
        return Counted(
            config,
            shape,
            dtype,
            optimizer,
            trust_remote_code,
            layer_sizes=tuple(find_stack(model).sizes()),
            parameters=sum(p.numel() for p in model.parameters()),
            weight_bytes=sum(w.numel() * w.element_size() for w in weights),
            cache_bytes=cache,
            sampling_bytes=sampling,
            arms={arm: count_pass(model, arm, shape, optimizer) for arm in arms},
        )


def make_bench(counted: Counted, device: torch.device) -> Bench:
    """What `time_step` will run on; its `bytes` say how much memory that takes."""

    @lru_cache
    def work(shape: StepShape) -> LayerWork:
        with counted_model(counted.config, counted.dtype, counted.trust_remote_code) as model:
            return count_layers(model, shape)

    outside = counted.parameters - sum(counted.layer_sizes)
    return Bench(
        counted.config,
        work,
        counted.shape,
        counted.dtype,
        device,
        layer_bytes=counted.dtype.itemsize * sum(counted.layer_sizes) / counted.n_layers,
        outside_bytes=counted.dtype.itemsize * outside,
        optimizer=counted.optimizer,
        trust_remote_code=counted.trust_remote_code,
    )


def time_step(counted: Counted, bench: Bench) -> dict[Arm, Seconds]:
    """Seconds of a step of each arm on this machine, without the weights: see `probes.cost.bench`.

    Cost: some seconds, and `Bench.bytes` of memory.
    """
    generation = time_sampling(bench)
    times = time_passes(bench, list(counted.arms))
    return {
        arm: Seconds(generation, t.forward, t.backward, t.optimizer_per_parameter * count.trainable)
        for (arm, count), t in zip(counted.arms.items(), times, strict=True)
    }


def roofline(counted: Counted, machine: Machine) -> dict[Arm, Seconds]:
    """Seconds of a step of each arm on a machine known by two numbers, each part bound by one of them.

    Reading prompts, forward and backward are bound by operations; drawing a token reads all weights and the cache of
    its rows (half full on average) and is bound by whichever is slower; the optimiser is bound by bytes.
    """
    shape = counted.shape
    forward_row = next(iter(counted.arms.values())).forward_flops / shape.pass_rows
    token = forward_row / shape.length
    at_once = shape.prompts_at_once * shape.group_size
    moved = counted.weight_bytes + counted.cache_bytes * (shape.prompt_tokens / shape.length + 1) / 2
    drawing = max(token * at_once / machine.flops, moved / machine.bandwidth) * shape.max_new_tokens
    generation = drawing * shape.rows / at_once + token * shape.prompt_tokens * shape.prompts / machine.flops
    return {
        arm: Seconds(
            generation,
            count.forward_flops * shape.passes / machine.flops,
            count.backward_flops * shape.passes / machine.flops,
            count.trainable * _UPDATE_BYTES / machine.bandwidth,
        )
        for arm, count in counted.arms.items()
    }
