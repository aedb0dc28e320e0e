"""A model without its weights: every module and every parameter's name and shape, from the configuration alone."""

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from probes.errors import UsageError
from probes.policy import ModelFiles, read_config


def read_skeleton(files: ModelFiles, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model on torch's meta device: shapes, names and ties, no numbers. Cost: reads ``config.json`` (or a GGUF
    file's header, seconds). Raises `UsageError` where transformers cannot build it as a causal language model.
    """
    config = read_config(files, trust_remote_code)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, OSError) as error:
        raise UsageError(
            f"'{files.name}' is not a causal language model that transformers can build "
            f"({str(error).splitlines()[0][:200]}). Give a decoder-only model."
        ) from error
