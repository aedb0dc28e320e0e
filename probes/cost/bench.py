"""A few layers of a configuration with random weights, on which seconds are taken: how many, how much at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from probes.cost.built import random_model
from probes.cost.layer_work import LayerWork
from probes.cost.shape import StepShape
from probes.policy import Policy
from probes.stack import find_stack

PASS_FLOPS = 1.5e10  # of a timed forward pass: about half a second of a CPU core
REPEATS = 3  # after one that is thrown away
_CACHE = 256 << 20  # bytes of layers that no processor's cache holds
_LAYERS = 4  # of a training pass


class Stub(Policy):
    """A model with random weights, to be run and not read: it has no tokenizer, and completions never end."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Stub":
        return cls("random weights", model, None, find_stack(model))

    @property
    def eos_ids(self) -> list[int]:
        return []

    @property
    def pad_id(self) -> int:
        return 0


@dataclass(frozen=True)
class Bench:
    """What is timed: a configuration with its counted work by shape, the step's shape, where, and which optimiser."""

    config: PretrainedConfig
    work: Callable[[StepShape], LayerWork]
    shape: StepShape
    dtype: torch.dtype
    device: torch.device
    layer_bytes: float  # of a layer's weights
    outside_bytes: float  # of embeddings, head and final norm
    optimizer: str = "adamw"
    trust_remote_code: bool = False

    @property
    def n_layers(self) -> int:
        return len(self.work(self.shape).forward)

    @property
    def training_layers(self) -> int:
        """Layers of a timed training pass."""
        return min(_LAYERS, self.sampling_layers)

    @property
    def sampling_layers(self) -> int:
        """Layers for timing how tokens are drawn: each token reads all weights, so they must overflow the cache."""
        return min(self.n_layers, max(2, ceil(_CACHE / self.layer_bytes)))

    @property
    def bytes(self) -> float:
        """Memory that timing takes, roughly: weights, the update's four numbers in float32, and half as much again."""
        sampling = self.sampling_layers * self.layer_bytes + self.outside_bytes
        training = (self.training_layers * self.layer_bytes + self.outside_bytes) * (1 + 16 / self.dtype.itemsize)
        return 1.5 * max(sampling, training)

    def stub(self, n_layers: int) -> Stub:
        """The first layers of the model with random weights."""
        return Stub.of(random_model(self.config, n_layers, self.dtype, self.device, self.trust_remote_code))

    def one_row(self) -> LayerWork:
        return self.work(replace(self.shape, prompts=1, group_size=1, rows_per_pass=1))

    def cut_pass(self) -> StepShape:
        """One pass of the step, with fewer rows, then shorter ones, where a whole one would take long."""
        work = self.one_row()
        row = work.head_forward + work.forward[: self.training_layers].sum()
        rows = int(np.clip(PASS_FLOPS / row, 1, self.shape.pass_rows))
        shape = replace(self.shape, prompts=1, group_size=rows, rows_per_pass=rows)
        if (share := PASS_FLOPS / row) < 0.5:
            lengths = [max(1, round(n * share)) for n in (shape.prompt_tokens, shape.max_new_tokens)]
            shape = replace(shape, prompt_tokens=lengths[0], max_new_tokens=lengths[1])
        return shape
