"""The weights of the decoder layers, one layer at a time, from files or from a loaded model."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from probes.errors import UsageError
from probes.policy import ModelFiles, Policy
from probes.skeleton import read_skeleton
from probes.stack import find_stack, prefix_in_files

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LayerWeights:
    """L layers whose tensors are read only when asked for. ``sizes`` are parameters per layer, (L,)."""

    n_layers: int
    prefix: str
    sizes: list[int]

    def read(self, k: int) -> Tensors:
        """Names within layer k and its floating-point tensors, on the CPU."""
        raise NotImplementedError


@dataclass(frozen=True)
class LoadedWeights(LayerWeights):
    """The layers of a model in memory."""

    policy: Policy

    @classmethod
    def of(cls, policy: Policy) -> "LoadedWeights":
        return cls(policy.n_layers, policy.stack.prefix, policy.stack.sizes(), policy)

    def read(self, k: int) -> Tensors:
        return {name: p.detach().cpu() for name, p in self.policy.stack.layers[k].named_parameters()}


@dataclass(frozen=True)
class SafetensorsWeights(LayerWeights):
    """The layers of a checkpoint folder; a file is open only while one layer is read, so memory stays at one layer."""

    file_of: dict[str, Path]
    file_prefix: str

    def read(self, k: int) -> Tensors:
        from safetensors import safe_open

        start = f"{self.file_prefix}.{k}."
        names = [name for name in self.file_of if name.startswith(start)]
        tensors = {}
        for file in {self.file_of[name] for name in names}:
            with safe_open(file, framework="pt") as opened:
                tensors |= {n.removeprefix(start): opened.get_tensor(n) for n in names if self.file_of[n] == file}
        return {name: t for name, t in tensors.items() if t.is_floating_point()}


@dataclass(frozen=True)
class GGUFWeights(LayerWeights):
    """The layers of a GGUF file, dequantised tensor by tensor."""

    path: Path

    @cached_property
    def tensors(self) -> dict:
        """The file's tensors by name; opened once, since the header takes seconds, and mapped, not read."""
        from gguf import GGUFReader

        return {tensor.name: tensor for tensor in GGUFReader(self.path).tensors}

    def read(self, k: int) -> Tensors:
        from gguf import dequantize

        start = f"{self.prefix}.{k}."
        return {
            name.removeprefix(start): torch.from_numpy(dequantize(t.data, t.tensor_type).copy())
            for name, t in self.tensors.items()
            if name.startswith(start)
        }


def open_weights(files: ModelFiles, trust_remote_code: bool = False) -> LayerWeights:
    """The layers of a model on disk, without loading it. Raises `UsageError` where it has none that can be read."""
    if files.is_gguf:
        return _open_gguf(files.path)
    from safetensors import SafetensorError

    stack = find_stack(read_skeleton(files, trust_remote_code))
    try:
        file_of = _tensor_files(files.path)
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise UsageError(
            f"The safetensors files of '{files.name}' cannot be read: {error}. Fetch them again."
        ) from error
    prefix = prefix_in_files(file_of, stack.prefix)
    if prefix is None:
        raise UsageError(
            f"The safetensors files of '{files.name}' hold no tensor named like '{stack.prefix}.0.…': they belong to "
            "another model or are incomplete."
        )
    return SafetensorsWeights(len(stack), stack.prefix, stack.sizes(), file_of, prefix)


def _tensor_files(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        entries = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in entries.items()}
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    if not found:
        raise UsageError(
            f"The folder '{folder}' has no safetensors weights: save the model with save_pretrained first."
        )
    return found


def _open_gguf(path: Path) -> GGUFWeights:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise UsageError(f"'{path}' is not a readable GGUF file: {error}.") from error
    sizes: dict[int, int] = {}
    for tensor in reader.tensors:
        match = re.match(r"blk\.(\d+)\.", tensor.name)
        if match:
            sizes[int(match.group(1))] = sizes.get(int(match.group(1)), 0) + int(tensor.n_elements)
    if not sizes:
        raise UsageError(f"The GGUF file '{path}' holds no decoder layers (tensors named blk.N).")
    return GGUFWeights(len(sizes), "blk", [sizes[k] for k in sorted(sizes)], path)
