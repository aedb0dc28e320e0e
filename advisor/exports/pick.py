"""The picked layers as exporters need them: exact names in the model, and how many numbers are trained."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel

from probes.stack import find_stack
from probes.training.in_place import check_layers


@dataclass(frozen=True)
class Pick:
    """Layers of a model. ``prefix`` is the name of the layer list (``model.layers``), ``parameters`` maps the full
    names of the layers' tensors to their numbers of elements, ``linear`` the full names of the modules that LoRA can
    adapt to (inputs, outputs), ``n_stacked`` is the number of elements in tensors of three dimensions, such as experts,
    which LoRA leaves out; ``model_parameters`` are the names of all tensors of the model, in its order."""

    prefix: str
    n_layers: int
    layers: tuple[int, ...]
    parameters: dict[str, int]
    linear: dict[str, tuple[int, int]]
    n_stacked: int
    model_parameters: tuple[str, ...]

    @classmethod
    def of(cls, model: PreTrainedModel, layers: Sequence[int]) -> "Pick":
        """These layers of `model`, which needs no weights (`probes.skeleton`)."""
        stack, layers = find_stack(model), tuple(sorted(set(layers)))
        check_layers(layers, len(stack))
        tensors = {name: p for k in layers for name, p in stack.parameters(k).items()}
        parameters = {name: p.numel() for name, p in tensors.items()}
        stacked = sum(p.numel() for p in tensors.values() if p.dim() > 2)
        modules = {name: model.get_submodule(name) for k in layers for name in stack.linear_modules(k)}
        linear = {name: _sides(module) for name, module in modules.items()}
        names = tuple(name for name, _ in model.named_parameters())
        return cls(stack.prefix, len(stack), layers, parameters, linear, stacked, names)

    @cached_property
    def n_parameters(self) -> int:
        return sum(self.parameters.values())

    def n_lora_parameters(self, rank: int) -> int:
        """Numbers in the two thin matrices of every linear map."""
        return sum(rank * (wide + high) for wide, high in self.linear.values())

    # Dots are written [.]: shells, YAML, Hydra and axolotl each treat backslashes in their own way.

    @property
    def parameter_regex(self) -> str:
        """Matches the start of the full name of every parameter of the layers, and of no other: 1 is not 10."""
        return f"^{_literal(self.prefix)}[.]{self._numbers}[.]"

    @property
    def linear_regex(self) -> str:
        """Matches, from end to end, the full names of the linear maps of the layers."""
        tails = dict.fromkeys(re.sub(r"^\d+[.]", "", name.removeprefix(f"{self.prefix}.")) for name in self.linear)
        return f"{_literal(self.prefix)}[.]{self._numbers}[.]({'|'.join(map(_literal, tails))})"

    @property
    def _numbers(self) -> str:
        return f"({'|'.join(map(str, self.layers))})"

    @property
    def last_names(self) -> list[str]:
        """The last parts of the linear maps' names, such as q_proj."""
        return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in self.linear))

    def says(self, way: str, rank: int) -> str:
        """One sentence for people: how many parameters, in which layers."""
        numbers = f"{{{', '.join(map(str, self.layers))}}}"
        if way == "lora":
            return f"trains {self.n_lora_parameters(rank):,} parameters (LoRA of rank {rank}) in layers {numbers}"
        return f"trains {self.n_parameters:,} parameters in layers {numbers}"


def _literal(name: str) -> str:
    return name.replace(".", "[.]")


def _sides(module) -> tuple[int, int]:
    weight = module.weight.shape
    return int(weight[0]), int(weight[1])
