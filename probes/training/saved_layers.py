"""Trained layers as a safetensors file, and putting them into a model with one call."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from probes.errors import RunError, UsageError


def save_layers(file: Path, weights: dict[str, torch.Tensor], dtype: torch.dtype, facts: dict[str, str]) -> None:
    """Write tensors by full parameter name in the policy's `dtype`, whole or not at all; `facts` go into the header.

    Raises `RunError` where there is no room.
    """
    tensors = {name: value.to(dtype) for name, value in weights.items()}
    write_tensors(file, tensors, {name: str(value) for name, value in facts.items()}, "The trained layer")


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], what: str) -> None:
    """Write a safetensors file whole or not at all, making its folder. Raises `RunError` where there is no room."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
        partial.replace(file)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{what} cannot be written into '{file.parent}' ({error}). What was finished before is kept: make room and "
            "run the same command again."
        ) from error


@torch.no_grad()
def load_layers(model: nn.Module, file: str | Path) -> list[str]:
    """Put the trained layers of `file` into `model`, in place; returns the names of the parameters that were set.

    Raises `UsageError` where the file is no safetensors file, or the model lacks one of its parameters or has it in
    another shape; nothing is changed then.
    """
    path = Path(file).expanduser()
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"'{file}' is not a safetensors file that can be read: {error}.") from error
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        if name not in parameters:
            raise UsageError(
                f"The model has no parameter '{name}', which '{file}' holds: it was trained on another model."
            )
        if parameters[name].shape != value.shape:
            raise UsageError(
                f"'{name}' has shape {tuple(value.shape)} in '{file}' and {tuple(parameters[name].shape)} in the "
                "model: it was trained on another model."
            )
    for name, value in tensors.items():
        parameters[name].copy_(value)
    return sorted(tensors)
