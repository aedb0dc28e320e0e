"""What is trained: all parameters, one layer, or LoRA on one layer. Set up on a model and put back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import UsageError
from probes.preserve import left_as_found
from probes.stack import LayerStack, find_stack
from probes.training.in_place import check_layers


@dataclass(frozen=True)
class Arm:
    """All parameters (``layer`` None), one layer, or LoRA of this ``rank`` on every linear map of the layer."""

    layer: int | None = None
    rank: int | None = None

    @property
    def name(self) -> str:
        if self.layer is None:
            return "full"
        return f"layer {self.layer}" if self.rank is None else f"LoRA on layer {self.layer}"

    def check(self, stack: LayerStack) -> None:
        """Raise `UsageError` for a layer that is not there, or LoRA where it has nothing to adapt."""
        if self.layer is None:
            return
        check_layers([self.layer], len(stack))
        if self.rank is None:
            return
        if self.rank < 1:
            raise UsageError(f"The rank {self.rank} is not allowed (--rank): it must be at least 1.")
        if not stack.linear_modules(self.layer):
            raise UsageError(f"Layer {self.layer} has no linear maps that LoRA can adapt: leave LoRA out (--no-lora).")


@contextmanager
def set_up(model: PreTrainedModel, arm: Arm) -> Iterator[list[nn.Parameter]]:
    """Inside, exactly the arm's parameters ask for gradients: yields them, tied ones once.

    LoRA's are random stand-ins of PEFT's shapes, in float32 as PEFT makes them by default, added by hooks.
    """
    stack = find_stack(model)
    arm.check(stack)
    with left_as_found(model):
        for parameter in model.parameters():
            parameter.requires_grad_(arm.layer is None and parameter.is_floating_point())
        if arm.layer is None:
            yield [p for p in model.parameters() if p.requires_grad]
        elif arm.rank is None:
            chosen = [p for p in stack.layers[arm.layer].parameters() if p.is_floating_point()]
            for parameter in chosen:
                parameter.requires_grad_(True)
            yield chosen
        else:
            yield _adapt(model, stack.linear_modules(arm.layer), arm.rank)


def _adapt(model: PreTrainedModel, names: list[str], rank: int) -> list[nn.Parameter]:
    """Add ``B A x`` to each linear map, whose weights stay frozen."""
    found = []
    for name in names:
        module = model.get_submodule(name)
        shape = tuple(module.weight.shape)
        width_out, width_in = reversed(shape) if isinstance(module, Conv1D) else shape
        down = nn.Parameter(torch.randn(rank, width_in, device=module.weight.device) * 0.02)
        up = nn.Parameter(torch.zeros(width_out, rank, device=module.weight.device))

        def added(_, inputs, output, down=down, up=up):
            return output + nn.functional.linear(nn.functional.linear(inputs[0].to(down.dtype), down), up) * 2.0

        module.register_forward_hook(lambda *call, added=added: added(*call).to(call[2].dtype))
        found += [down, up]
    return found
