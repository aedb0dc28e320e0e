"""Find the decoder layers of a causal language model by structure, and say how they are named."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from probes.errors import UsageError


@dataclass(frozen=True)
class LayerStack:
    """The L decoder layers of a model.

    ``prefix`` is the dotted path of the list that holds them (``model.layers``), so that the
    parameters of layer k are those whose name starts with ``prefix.k.`` (the dot ends the index: 1 is not 10).
    """

    layers: nn.ModuleList
    prefix: str

    def __len__(self) -> int:
        return len(self.layers)

    def parameters(self, k: int) -> dict[str, nn.Parameter]:
        """Full names and parameters of layer k."""
        return {f"{self.prefix}.{k}.{name}": p for name, p in self.layers[k].named_parameters()}

    def sizes(self) -> list[int]:
        """Number of parameters of each layer, (L,)."""
        return [sum(p.numel() for p in layer.parameters()) for layer in self.layers]

    def linear_modules(self, k: int) -> list[str]:
        """Full names of the modules of layer k that LoRA can adapt: linear maps, also GPT-2's transposed kind.

        Experts that are kept as one three-dimensional tensor are none, and are left out.
        """
        named = self.layers[k].named_modules()
        return [f"{self.prefix}.{k}.{name}" for name, module in named if isinstance(module, (nn.Linear, Conv1D))]


def find_stack(model: PreTrainedModel) -> LayerStack:
    """The decoder stack: the longest list of transformers layers inside the text decoder.

    Layers are recognised by their class (`GradientCheckpointingLayer`, the base of transformers' blocks), not
    by a list of model names. Vision or audio towers are left out by looking inside ``get_decoder()`` first.
    Cost: one walk over the modules. Raises `UsageError` where no such list exists.
    """
    names = {id(module): name for name, module in model.named_modules()}
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    for root in (decoder, model):
        if root is None:
            continue
        lists = [m for m in root.modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
        stacks = [m for m in lists if all(isinstance(layer, GradientCheckpointingLayer) for layer in m)]
        if stacks:
            layers = max(stacks, key=len)
            return LayerStack(layers, names[id(layers)])
    raise UsageError(
        f"No decoder layers were found in a {type(model).__name__}: the advisor needs a model whose blocks form a "
        "torch ModuleList of transformers GradientCheckpointingLayer objects. Use a decoder-only model of transformers."
    )


def prefix_in_files(names: Iterable[str], prefix: str) -> str | None:
    """The form in which `prefix` occurs among checkpoint tensor names.

    Files sometimes drop or add leading parts (``h.0.`` for ``transformer.h``), so the longest tail of the
    prefix that occurs is taken, with whatever leads it in the file. None if no tail does.
    """
    names = list(names)
    parts = prefix.split(".")
    for start in range(len(parts)):
        tail = ".".join(parts[start:])
        pattern = re.compile(r"((?:.*\.)?" + re.escape(tail) + r")\.\d+\.")
        found = [m.group(1) for m in map(pattern.match, names) if m]
        if found:
            return max(set(found), key=found.count)
    return None
