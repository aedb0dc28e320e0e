"""What each layer takes, in floating-point operations: forward, and backward as far as each kind of training needs it.

One forward pass on fake tensors. Each layer is run on its own, cut off from the others, so that its backward pass can
be counted apart: through it only, for its weights only, or for both. What any single-layer training takes is then a
sum over the layers above.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from probes.cost.built import counted_model
from probes.cost.counting import Bill, predicted_log_probs
from probes.cost.shape import StepShape
from probes.errors import RunError
from probes.preserve import left_as_found
from probes.stack import find_stack
from probes.tape import replaced_forwards

# An optimiser's step is bound by memory: 30 bytes a parameter (weight, copy, gradient and two moments read, all but the
# gradient written), at the 20 or so operations that a machine does in the time of a byte (a CPU core about 5, an H100
# in bfloat16 about 300). At a thousand tokens and more it is below one per cent of a step.
_OPTIMIZER_FLOPS = 30 * 20


@dataclass(frozen=True)
class LayerWork:
    """FLOPs of one pass by layer, (L,), and of what surrounds the layers.

    ``forward`` of a layer; ``through`` its backward pass with frozen weights, ``own`` that to its weights alone (it is
    the lowest trained layer), ``both`` to its weights and its input. ``head_forward`` is all that is not in a layer;
    ``head_backward`` leads from the loss to the last layer's output.
    """

    forward: np.ndarray
    through: np.ndarray
    own: np.ndarray
    both: np.ndarray
    head_forward: int
    head_backward: int

    def backward(self, k: int) -> int:
        """FLOPs of backward when layer k alone is trained."""
        return int(self.head_backward + self.through[k + 1 :].sum() + self.own[k])

    @property
    def total_forward(self) -> int:
        return int(self.head_forward + self.forward.sum())


def count_layers(model: PreTrainedModel, shape: StepShape) -> LayerWork:
    """Count one pass of `shape.pass_rows` rows; `model` is of `probes.cost.built.counted_model`.

    Cost: five small passes for each kind of layer: layers of the same class, shapes and type count the same.
    """
    stack = find_stack(model)
    layers, kinds = list(stack.layers), _kinds(model)
    counts: dict[Any, tuple[int, int, int, int]] = {}
    last: list[torch.Tensor] = []

    def forward_of(k: int, layer, original):
        def forward(hidden_states: torch.Tensor, *args, **kwargs):
            def run(through: bool, own: bool) -> tuple[Any, int, int]:
                leaf = hidden_states.detach().requires_grad_(through)
                for parameter in parameters:
                    parameter.requires_grad_(own)
                wanted = [leaf] * through + parameters * own
                with torch.set_grad_enabled(bool(wanted)), Bill([]) as bill:
                    result = original(leaf, *args, **kwargs)
                    forward, out = bill.flops, result[0] if isinstance(result, tuple) else result
                    if wanted:
                        torch.autograd.grad(out, wanted, torch.zeros_like(out), allow_unused=True)
                return result, forward, bill.flops - forward

            parameters = [p for p in layer.parameters() if p.is_floating_point()]
            result, flops, _ = run(False, False)
            if kinds[k] not in counts:
                backward = [run(*flags)[2] for flags in ((True, False), (False, True), (True, True))]
                counts[kinds[k]] = (flops, *backward)
            if k == len(layers) - 1:
                out = (result[0] if isinstance(result, tuple) else result).detach().requires_grad_()
                last.append(out)
                result = (out, *result[1:]) if isinstance(result, tuple) else out
            return result

        return forward

    with left_as_found(model):
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        with torch.enable_grad(), replaced_forwards(layers, forward_of), Bill([]) as bill:
            ids = torch.zeros((shape.pass_rows, shape.length), dtype=torch.long, device=model.device)
            log_probs = predicted_log_probs(model, ids, shape.prompt_tokens)
            whole = bill.flops
            torch.autograd.grad(log_probs.sum(), last, allow_unused=True)
    table = np.array([counts[kind] for kind in kinds], dtype=float)
    # Bills nest: the outer one has seen each kind's backward passes, and the forward passes to them, as well.
    inside = table[:, 0].sum() + sum(3 * f + a + b + c for f, a, b, c in counts.values())
    return LayerWork(*table.T, head_forward=int(whole - inside), head_backward=int(bill.flops - whole))


def layer_costs(model: PreTrainedModel, shape: StepShape | None = None, trust_remote_code: bool = False) -> np.ndarray:
    """What a training step takes when layer k alone is trained, over a step of all parameters: (L,), below 1.

    Counted operations of forward, of the part of backward that reaches the layer, and the optimiser's step; sampling,
    the same for every layer, is left out. Of `model`, which may be a skeleton (`probes.skeleton`), the configuration
    is read; one that cannot be counted is taken to need two operations for each weight and token. `shape` None is a
    step of 16 x 8 rows of 128 prompt and 128 completion tokens, of which one is counted. Cost: about a second.
    """
    shape = shape or StepShape(prompt_tokens=128, max_new_tokens=128, rows_per_pass=1)
    sizes = np.array(find_stack(model).sizes(), dtype=float)
    outside = sum(p.numel() for p in model.parameters()) - sizes.sum()
    try:
        with counted_model(model.config, torch.bfloat16, trust_remote_code) as counted:
            work = count_layers(counted, shape)
    except RunError:
        work = _by_size(sizes, outside, shape)
    update = _OPTIMIZER_FLOPS / shape.passes
    single = np.array([work.backward(k) for k in range(len(sizes))]) + update * sizes
    # The head's own weights take as much as leading backward through it does.
    full = 2 * work.head_backward + work.both.sum() + update * (sizes.sum() + outside)
    return (work.total_forward + single) / (work.total_forward + full)


def _by_size(sizes: np.ndarray, outside: float, shape: StepShape) -> LayerWork:
    """Two operations for each weight and token, as in a product, for a model that cannot be counted."""
    each = 2.0 * shape.pass_rows * shape.length * sizes
    head = int(2 * shape.pass_rows * shape.max_new_tokens * outside)
    return LayerWork(each, each, each, 2 * each, head, head)


def _kinds(model: PreTrainedModel) -> list[Any]:
    """What tells layers of different work apart: class, shapes of weights, and the type that the configuration says."""
    stack, config = find_stack(model), model.config.get_text_config()
    types = getattr(config, "layer_types", None)
    types = types if isinstance(types, list) and len(types) == len(stack) else [None] * len(stack)
    return [
        (type(layer), kind, tuple(tuple(p.shape) for p in layer.parameters()))
        for layer, kind in zip(stack.layers, types, strict=True)
    ]
