"""One forward pass over the rollouts with every layer's input kept, and its backward pass one layer at a time.

The ordinary backward pass goes through all layers for one batch before the next batch starts, so whoever wants
per-group gradients of all layers must hold them for all layers. The tape turns the loops round: for each layer from
the last to the first, all groups. Then only one layer's gradients exist at any time, and statistics over groups can
be folded and the gradients freed.

What is kept between the passes is each layer's input and, while they fit into ``graph_bytes``, the autograd graphs
of the last layers; the other layers run forward once more. Cost: one forward, one backward, and a second forward
through the layers whose graphs did not fit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probes.layout import GroupBatch
from probes.policy import Policy

GRAPH_BYTES = 3 << 29  # 1.5 GiB: keeps the packaged default's whole run below 4 GB


@dataclass
class _Call:
    """One layer's call for one batch: its input and other arguments, and its graph where that was kept."""

    hidden: torch.Tensor
    args: tuple
    kwargs: dict[str, Any]
    leaf: torch.Tensor | None = None
    output: torch.Tensor | None = None


@dataclass
class Tape:
    """The recorded forward pass. Use `recorded` to make one; it is good for one `backward`.

    ``calls[i][k]`` is layer k's call for batch i, ``outputs[i]`` the last layer's output and ``output_grads[i]``
    the objective's gradient there (ascent direction), ``objectives[i]`` its value J_i. ``wraps_output`` says that
    layers return a tuple instead of the bare residual stream.
    """

    policy: Policy
    batches: Sequence[GroupBatch]
    calls: list[list[_Call]] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    output_grads: list[torch.Tensor] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)
    wraps_output: bool = False

    def hidden(self, batch: int, k: int) -> torch.Tensor:
        """The residual stream before layer k (B, S, H); k = L gives the last layer's output."""
        return self.outputs[batch] if k == self.policy.n_layers else self.calls[batch][k].hidden

    def parameters(self, k: int) -> list[torch.Tensor]:
        """The parameters of layer k that have gradients: its floating-point ones."""
        return [p for p in self.policy.stack.layers[k].parameters() if p.requires_grad]

    def backward(self, progress: Callable[[], None] = lambda: None) -> Iterator[tuple[int, Iterator[list]]]:
        """Yield (k, gradients) from the last layer to the first.

        ``gradients`` yields for each batch the gradient of J_i by each of `parameters` (k), in order, None for one that
        takes no part. Exhaust it before asking for the next layer.
        """
        grads = list(self.output_grads)
        for k in reversed(range(self.policy.n_layers)):
            pending = self._layer_gradients(k, grads, progress)
            yield k, pending
            for _ in pending:  # what the caller left over still has to flow further down
                pass

    def _layer_gradients(self, k: int, grads: list[torch.Tensor], progress: Callable[[], None]) -> Iterator[list]:
        layer, parameters = self.policy.stack.layers[k], self.parameters(k)
        for i, calls in enumerate(self.calls):
            call = calls[k]
            with torch.enable_grad():
                if call.output is None:
                    _run(layer, call)
                found = torch.autograd.grad(call.output, [call.leaf, *parameters], grads[i], allow_unused=True)
            call.leaf = call.output = None  # frees the graph
            grads[i] = found[0]
            progress()
            yield list(found[1:])


@contextmanager
def recorded(
    policy: Policy,
    batches: Sequence[GroupBatch],
    *,
    graph_bytes: int = GRAPH_BYTES,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Tape]:
    """Record the forward pass of every batch; inside, the layers' parameters ask for gradients.

    Everything is put back on leaving by the caller's `probes.preserve.left_as_found`, which must be around it.
    Embeddings, final norm and head get no gradient.
    """
    for parameter in policy.model.parameters():
        parameter.requires_grad_(False)
    for parameter in policy.stack.layers.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    tape = Tape(policy, batches)
    first_kept = policy.n_layers
    for i, batch in enumerate(batches):
        tape.calls.append([])
        with _recording(policy, tape, first_kept), torch.enable_grad():
            objective = batch.objective(policy.model(**batch.inputs).logits)
            tape.output_grads.append(torch.autograd.grad(objective, tape.outputs[i])[0])
        tape.objectives.append(float(objective.detach()))
        if i == 0:
            first_kept = _first_kept(policy, tape.calls[0], len(batches), graph_bytes)
        progress()
    yield tape


@contextmanager
def _recording(policy: Policy, tape: Tape, first_kept: int) -> Iterator[None]:
    """Replace each layer's forward by one that notes its call, detaches layers from each other, and runs it."""
    calls, layers = tape.calls[-1], list(policy.stack.layers)

    def forward_of(k: int, layer: nn.Module, original: Callable) -> Callable:
        def forward(hidden_states: torch.Tensor, *args, **kwargs):
            call = _Call(hidden_states.detach(), args, kwargs)
            calls.append(call)
            if k >= first_kept:
                result = _run(layer, call, original)
                hidden = call.output.detach()
            else:
                with torch.no_grad():
                    result = original(call.hidden, *args, **kwargs)
                hidden = _hidden_of(result)
            if k == len(layers) - 1:
                hidden = hidden.detach().requires_grad_()
                tape.outputs.append(hidden)
            tape.wraps_output = isinstance(result, tuple)
            return (hidden, *result[1:]) if tape.wraps_output else hidden

        return forward

    with replaced_forwards(layers, forward_of):
        yield


@contextmanager
def replaced_forwards(layers: Sequence[nn.Module], forward_of: Callable[[int, nn.Module, Callable], Callable]):
    """Inside, layer k runs ``forward_of(k, layer, original forward)``."""
    found = [(layer, layer.__dict__.get("forward"), layer.forward) for layer in layers]
    try:
        for k, (layer, _, original) in enumerate(found):
            layer.forward = forward_of(k, layer, original)
        yield
    finally:
        for layer, own, _ in found:
            if own is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = own


def _run(layer: nn.Module, call: _Call, forward: Callable | None = None) -> Any:
    """Run the call with a graph from its leaf to its output; returns what the layer returned."""
    call.leaf = call.hidden.detach().requires_grad_()
    with torch.enable_grad():
        result = (forward or layer.forward)(call.leaf, *call.args, **call.kwargs)
    call.output = _hidden_of(result)
    return result


def _hidden_of(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _first_kept(policy: Policy, calls: list[_Call], n_batches: int, graph_bytes: int) -> int:
    """The lowest layer from which on all graphs fit into `graph_bytes`, judged by the first batch's last layer."""
    weights = {p.data_ptr() for p in policy.stack.layers.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    k = policy.n_layers - 1
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _run(policy.stack.layers[k], calls[k])
    n_fitting = graph_bytes // max(1, sum(saved.values()) * n_batches)
    return max(0, policy.n_layers - int(n_fitting))
