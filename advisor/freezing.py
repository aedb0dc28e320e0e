"""From a pick to what is trained: frozen weights, optimiser groups and LoRA on exactly the picked layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from probes.errors import UsageError
from probes.stack import find_stack
from probes.training.in_place import check_layers

if TYPE_CHECKING:
    from peft import LoraConfig


class Frozen:
    """A model of which only ``layers`` are trained, until `undo` or the end of a ``with`` puts every flag back.

    ``names`` are the trained parameters' full names, ``n_parameters`` their number. transformers' gradient
    checkpointing makes the embeddings ask for gradients, so that backward and recomputation run through every frozen
    layer; while frozen that request is a no-op, now and whenever checkpointing is switched on again.
    Raises `UsageError` for a layer that the model does not have, one whose weights it shares with other modules, or
    weights that cannot be trained, before anything is changed.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int]) -> None:
        stack = find_stack(model)
        check_layers(layers, len(stack))
        self.model, self.layers = model, tuple(sorted(set(layers)))
        chosen = {name: p for k in self.layers for name, p in stack.parameters(k).items()}
        _check_trainable(model, chosen)
        self.names = tuple(chosen)
        self.n_parameters = sum(p.numel() for p in {id(p): p for p in chosen.values()}.values())
        self._flags = [(p, p.requires_grad) for p in model.parameters()]
        self._asked = hasattr(model, "_require_grads_hook") or bool(getattr(model, "_require_grads_hooks", None))
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        if self._asked:
            model.disable_input_require_grads()
        model.enable_input_require_grads = lambda: None
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        if trained != set(self.names):
            self.undo()
            raise UsageError(f"Tensors outside the picked layers would be trained: {sorted(trained ^ set(chosen))}.")

    def undo(self) -> None:
        """Put requires_grad of every parameter, and the embeddings' request for gradients, back as found."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        self.model.__dict__.pop("enable_input_require_grads", None)
        if self._asked:
            self.model.enable_input_require_grads()
            self._asked = False

    def __enter__(self) -> "Frozen":
        return self

    def __exit__(self, *exc) -> None:
        self.undo()

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.layers))
        return f"trains {self.n_parameters:,} parameters in {len(self.names)} tensors, in layers {{{numbers}}}"


def param_groups(
    model: PreTrainedModel, layers: Sequence[int], lr: float, *, scheme: str = "pick", boost: float = 2.0
) -> list[dict[str, Any]]:
    """Optimiser groups with layer-wise learning rates.

    "pick": the layers alone, at `lr`. "boost": the layers at `boost` times `lr` and every other parameter at `lr`, as
    arXiv 2607.01232 does with its best layers (twice the rate). Each parameter is in one group, tied ones once.
    Raises `UsageError` for another scheme, a rate that is not positive, or a layer that the model does not have.
    """
    if scheme not in ("pick", "boost"):
        raise UsageError(f"Unknown scheme '{scheme}': choose pick (the layers alone) or boost (they learn faster).")
    if not (lr > 0 and boost > 0):
        raise UsageError(f"lr {lr} and boost {boost} must be above 0.")
    stack = find_stack(model)
    check_layers(layers, len(stack))
    chosen = {id(p): p for k in sorted(set(layers)) for p in stack.parameters(k).values()}
    if scheme == "pick":
        return [{"params": list(chosen.values()), "lr": lr, "name": "pick"}]
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        {"params": list(chosen.values()), "lr": boost * lr, "name": "pick"},
        {"params": others, "lr": lr, "name": "others"},
    ]


def lora_config(model: PreTrainedModel, layers: Sequence[int], r: int = 16, **options: Any) -> "LoraConfig":
    """PEFT's LoRA on every linear map of the layers (full names, so that layer 1 is not 10).

    `options` are further fields of `peft.LoraConfig`. Raises `UsageError` where PEFT is not installed or a layer has
    no linear map.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UsageError(f"LoRA needs PEFT: pip install peft ({error}).") from error
    stack = find_stack(model)
    check_layers(layers, len(stack))
    names = [name for k in sorted(set(layers)) for name in stack.linear_modules(k)]
    if not names:
        raise UsageError(f"Layers {list(layers)} have no linear maps that LoRA can adapt: train them whole.")
    return LoraConfig(**{"r": r, "lora_alpha": 2 * r, "task_type": "CAUSAL_LM", "target_modules": names, **options})


def _check_trainable(model: PreTrainedModel, chosen: dict[str, nn.Parameter]) -> None:
    for name, p in chosen.items():
        if not p.is_floating_point():
            raise UsageError(f"{name} is {str(p.dtype)[6:]}, which cannot be trained: load unquantised weights.")
    ids = {id(p) for p in chosen.values()}
    every = model.named_parameters(remove_duplicate=False)
    shared = [name for name, p in every if id(p) in ids and name not in chosen]
    if shared:
        raise UsageError(f"The picked layers share weights with {', '.join(shared[:3])}: one would train the other.")
