"""The model that a run is about: given as objects, or by a name whose files are found first and loaded when needed."""

import hashlib
import json
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from advisor.environment import version
from advisor.forecast import guess_parameters
from probes.checkpoint import LayerWeights, LoadedWeights
from probes.errors import UsageError
from probes.policy import ModelFiles, Policy, check_dtype, find_files, load_policy, resolve_device
from probes.progress import Progress
from probes.skeleton import read_skeleton
from probes.stack import find_stack


class Subject:
    """A model with the place it runs in. ``files`` is None where objects were given.

    Without `weights` a model of the hub is not fetched beyond its configuration, and cannot be loaded.

    Raises `UsageError` at once where the name leads nowhere, a tokenizer is missing, or the device cannot be used.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        progress: Progress | None = None,
        weights: bool = True,
    ) -> None:
        self.device, self.dtype, self.trust_remote_code = device, dtype, trust_remote_code
        self.files: ModelFiles | None = None
        self._policy: Policy | None = None
        if not isinstance(model, PreTrainedModel):
            resolve_device(device)
            check_dtype(dtype)
            self.files = find_files(str(model), progress or Progress(), trust_remote_code, weights=weights)
        elif tokenizer is None:
            raise UsageError("A loaded model needs its tokenizer: call with (model, tokenizer, task).")
        else:
            self._policy = Policy.from_objects(model, tokenizer)

    @property
    def name(self) -> str:
        return self.files.name if self.files else self._policy.name

    @property
    def is_gguf(self) -> bool:
        return self.files is not None and self.files.is_gguf

    @property
    def n_parameters(self) -> float:
        """Parameters of the whole model; from file sizes as long as it is not loaded."""
        return self._policy.n_parameters if self._policy else guess_parameters(str(self.files.path))

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """Every name and shape: the loaded model itself, or one made from its configuration without weights."""
        return self._policy.model if self._policy else read_skeleton(self.files, self.trust_remote_code)

    @property
    def n_layers(self) -> int:
        return len(find_stack(self.skeleton))

    def policy(self, progress: Progress | None = None) -> Policy:
        """The policy, loaded when first asked for."""
        if self._policy is None:
            self._policy = load_policy(
                self.files,
                device=self.device,
                dtype=self.dtype,
                trust_remote_code=self.trust_remote_code,
                progress=progress,
            )
        return self._policy

    def identity(self) -> dict[str, Any]:
        """What makes two runs ones of the same model."""
        return {
            "model": self.name,
            "model_fingerprint": (self.files or self._policy).fingerprint(),
            "device": self.device,
            "dtype": self.dtype,
            "layer_advisor": version(),
        }

    def facts(self, weights: LayerWeights | None = None) -> dict[str, Any]:
        """The model as every result describes it; `weights` are asked where the policy was not loaded."""
        weights = weights or LoadedWeights.of(self._policy)
        facts = {
            "name": self.name,
            "n_layers": weights.n_layers,
            "layer_prefix": weights.prefix,
            "layer_parameters": weights.sizes,
        }
        if self._policy is not None:
            facts |= {
                "class": type(self._policy.model).__name__,
                "parameters": self._policy.n_parameters,
                "dtype": str(self._policy.dtype)[6:],
                "device": str(self._policy.device),
                "tied_embeddings": self._policy.tied_embeddings,
            }
        return facts


def identity_hash(identity: dict[str, Any]) -> str:
    """Eight hex digits that tell runs apart in folder names."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
