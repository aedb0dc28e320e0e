"""Models of a configuration without its weights: on no memory at all, or short ones with random weights."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from probes.errors import RunError

_UNCOUNTABLE = (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, IndexError)
_BLOCK = 1 << 16  # random numbers that are drawn for the weights and repeated: their values do not change the time


@contextmanager
def counted_model(config: PretrainedConfig, dtype: torch.dtype, trust_remote_code: bool = False) -> Iterator:
    """The model on fake tensors, which have shape, type and device but no numbers, as long as the context is open.

    Unlike on torch's meta device, each operation is the one that a CPU would run, so that attention is not written out
    in T × T where the real one is not. Two functions of transformers that look at numbers, or at the machine, are
    answered beforehand. Raises `RunError` where a model's course depends on numbers.
    """
    import transformers.integrations.moe as moe
    import transformers.masking_utils as masking

    with ExitStack() as opened:
        opened.enter_context(FakeTensorMode())
        # "Are several sequences packed into a row?" No.
        opened.enter_context(_replaced(masking, "find_packed_sequence_indices", lambda position_ids: None))
        # The product for experts knows not every type; one for a single expert has the same operations and sizes.
        opened.enter_context(_replaced(moe, "_grouped_mm", _one_expert))
        try:
            yield _build(config, dtype, trust_remote_code)
        except _UNCOUNTABLE as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise RunError(
                f"A {config.model_type} model cannot be run on shapes alone ({reason}): its step cannot be counted. "
                "--debug shows where."
            ) from error


def random_model(
    config: PretrainedConfig,
    n_layers: int,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The first `n_layers` layers of the model with its embeddings and head, with random weights, in memory."""
    with device:
        model = _build(shortened(config, n_layers), dtype, trust_remote_code)
    numbers = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(device, dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)  # the others are norms
                continue
            flat = parameter.view(-1)
            whole = len(flat) // _BLOCK * _BLOCK
            flat[:whole].view(-1, _BLOCK).copy_(numbers.expand(whole // _BLOCK, -1))
            flat[whole:].copy_(numbers[: len(flat) - whole])
    return model


def shortened(config: PretrainedConfig, n_layers: int) -> PretrainedConfig:
    """The configuration of the first `n_layers` layers; lists with an entry a layer are cut with it."""
    short = copy.deepcopy(config)
    for part in {id(c): c for c in (short, short.get_text_config())}.values():
        n_found = getattr(part, "num_hidden_layers", None)
        if n_found is None:
            continue
        for name, value in list(vars(part).items()):
            if isinstance(value, list) and len(value) == n_found > 1 and n_layers < n_found:
                setattr(part, name, value[:n_layers])
        part.num_hidden_layers = n_layers
    return short


def _build(config: PretrainedConfig, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=dtype, trust_remote_code=trust_remote_code
        )
        model.tie_weights()
    return model.eval()


def _replaced(module, name: str, stand_in):
    return mock.patch.object(module, name, stand_in) if hasattr(module, name) else ExitStack()


def _one_expert(rows: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    """(M, N) from rows (M, K) and the first of the experts (E, K, N)."""
    return rows.to(weight.dtype) @ weight[0]
