"""Count what one training pass takes: operations and bytes, of any architecture, without numbers and without formulas.

The pass runs on tensors that have shapes only. Every operation that autograd sends to the device is seen on its way:
its floating-point operations are counted, and every buffer it makes is on the bill from then until it is freed.
"""

import inspect
import weakref
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper
from transformers import PreTrainedModel

from probes.cost.arms import Arm, set_up
from probes.cost.shape import StepShape
from probes.noise import choose_tokens
from probes.policy import Policy
from probes.sampling import CachedModel
from probes.stack import find_stack
from probes.training.checkpointing import checkpointed
from probes.training.config import TrainingConfig
from probes.training.optimizer import MasterAdamW

OPTIMIZERS = ("adamw", "sgd")
_MOMENTS = 8  # bytes a parameter of Adam's two moments in float32
_ROWS_AT_ONCE = 64  # of logits in float32: see `probes.log_probs`


class Bill(TorchDispatchMode):
    """Inside, ``flops`` adds up, ``now`` is how many bytes of new buffers are alive, ``peak`` the most there were.

    Buffers of the tensors `there`, which come before the bill, are not on it, whatever views are made of them.
    """

    def __init__(self, there: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.flops = self.now = self.peak = 0
        self._there = [tensor.untyped_storage() for tensor in there]  # kept, so that no other takes their place
        self._seen: dict[int, weakref.ref | None] = {storage._cdata: None for storage in self._there}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        formula = _FORMULAS.get(function._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        for leaf in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def gone(_, key=key, size=size):
            self.now -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


@dataclass(frozen=True)
class PassCount:
    """One forward and backward pass of an arm.

    FLOPs of the pass (a multiplication and an addition are two); ``activations`` are the bytes alive between forward
    and backward beside the weights, logits included; ``peak`` the most bytes at any moment beside weights and
    optimiser, gradients included. ``gradients`` and ``optimizer`` are bytes of the whole update.
    """

    trainable: int
    forward_flops: int
    backward_flops: int
    activations: int
    peak: int
    gradients: int
    optimizer: int


def count_pass(model: PreTrainedModel, arm: Arm, shape: StepShape, optimizer: str = "adamw") -> PassCount:
    """Count one pass of `shape.pass_rows` rows. `model` may be of `counted_model`, or a real one on a CPU.

    "adamw" is `MasterAdamW`: gradient, moments and, of half precision, a copy of the weights in float32. "sgd" is
    plain: gradients in the weights' own type, no state. Cost: a pass on fake tensors, about a second for 30 layers.
    """
    stack = find_stack(model)
    with set_up(model, arm) as trained, ExitStack() as closing:
        update = MasterAdamW(trained, TrainingConfig()) if optimizer == "adamw" else None
        if update:
            closing.callback(update.close)
        masters = update.masters if update else trained
        policy = Policy("", model, None, stack)
        saving = checkpointed(policy, arm.layer or 0) if shape.gradient_checkpointing else nullcontext()
        there = [*model.parameters(), *model.buffers(), *trained, *masters]
        with saving, Bill(there) as bill:
            if shape.passes > 1:  # the gradients of the passes before are there already
                for master in masters:
                    master.grad = torch.zeros_like(master)
            held = bill.now
            ids = torch.zeros((shape.pass_rows, shape.length), dtype=torch.long, device=model.device)
            log_probs = predicted_log_probs(model, ids, shape.prompt_tokens)
            activations, forward = bill.now - held, bill.flops
            log_probs.sum().backward()
        numbers = sum(p.numel() for p in trained)
        copies = sum(m.numel() * 4 for m, p in zip(masters, trained, strict=True) if m is not p)
        return PassCount(
            trainable=numbers,
            forward_flops=forward,
            backward_flops=bill.flops - forward,
            activations=activations,
            peak=bill.peak,
            gradients=sum(m.numel() * m.element_size() for m in masters),
            optimizer=copies + _MOMENTS * numbers if update else 0,
        )


@torch.no_grad()
def count_generation(model: PreTrainedModel, shape: StepShape) -> tuple[int, int]:
    """Bytes of the cache when completions are at their longest, and the most at any moment of sampling, that included.

    As `probes.sampling.sample_completions` works: prompts read once, then a token at a time, drawn with noise.
    """
    policy = Policy("", model, None, find_stack(model))
    n_prompts, device = shape.prompts_at_once, model.device
    n_rows = n_prompts * shape.group_size
    with Bill([*model.parameters(), *model.buffers()]) as bill:
        ids = torch.zeros((n_prompts, shape.prompt_tokens), dtype=torch.long, device=device)
        step = CachedModel(policy, torch.ones_like(ids))
        logits = step(ids)
        if hasattr(step.cache, "reorder_cache"):
            step.cache.reorder_cache(torch.zeros(n_rows, dtype=torch.long, device=device))
            logits, step.mask = (x.repeat_interleave(shape.group_size, 0) for x in (logits, step.mask))
        else:
            step = CachedModel(policy, step.mask.repeat_interleave(shape.group_size, 0))
            logits = step(ids.repeat_interleave(shape.group_size, 0))
        begun = bill.peak
        if shape.max_new_tokens > 1:  # all but the last at once: only what is left of them counts
            logits = step(torch.zeros((n_rows, shape.max_new_tokens - 1), dtype=torch.long, device=device))
        bill.peak = bill.now
        drawn = torch.empty((n_rows, logits.shape[1]), device=device)
        choose_tokens(logits, 1.0, drawn.clone())
        logits = step(torch.zeros((n_rows, 1), dtype=torch.long, device=device))
        peak = max(begun, bill.peak)
        del drawn, logits, ids
        return bill.now, peak


def predict(model: PreTrainedModel, ids: torch.Tensor, prompt_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One forward pass over rows of prompt and completion (B, T): logits (R, V) and which of them predict completion
    tokens (N,). Other logits are computed only where the model knows no better."""
    columns = torch.arange(prompt_tokens - 1, ids.shape[1] - 1, device=ids.device)
    inputs = {"input_ids": ids, "use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"], columns = columns, torch.arange(len(columns), device=ids.device)
    logits = model(**inputs).logits
    starts = torch.arange(len(ids), device=ids.device) * logits.shape[1]
    return logits.flatten(0, 1), (starts[:, None] + columns).flatten()


def predicted_log_probs(model: PreTrainedModel, ids: torch.Tensor, prompt_tokens: int) -> torch.Tensor:
    """Stand-in for the log-probabilities of completion tokens, with what `probes.log_probs` keeps and needs."""
    logits, source = predict(model, ids, prompt_tokens)
    return _StandIn.apply(logits, source)


class _StandIn(torch.autograd.Function):
    """Log-probabilities without looking at the logits: their memory, not their values."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        normaliser = torch.zeros(len(source), device=logits.device)
        ctx.save_for_backward(logits, source, normaliser)
        return torch.zeros_like(normaliser)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        logits, *_ = ctx.saved_tensors
        found = torch.zeros_like(logits)
        torch.empty((2, min(_ROWS_AT_ONCE, len(logits)), logits.shape[1]), device=logits.device)
        return found, None


@shape_wrapper
def _attention(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


@shape_wrapper
def _attention_backward(grad, query, key, value, *args, **kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


@shape_wrapper
def _grouped(rows, other, *args, **kwargs) -> int:
    """(M, K) by (E, K, N): each row goes through one expert; or (K, M) by (M, N), in groups of rows of M."""
    return 2 * rows[0] * rows[1] * other[-1]


_FORMULAS = {
    **flop_registry,
    torch.ops.aten._grouped_mm: _grouped,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
