"""The policy: a causal language model to be trained, its tokenizer and its layer stack."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes import packaged
from probes.errors import UsageError, unknown_name
from probes.preserve import left_as_found
from probes.progress import Progress
from probes.stack import LayerStack, find_stack

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are: a folder in transformers' layout, or one GGUF file."""

    name: str
    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()

    @property
    def has_weights(self) -> bool:
        """Whether the weights are there too, and not only the configuration."""
        return self.is_gguf or any(self.path.glob("*.safetensors"))

    def fingerprint(self) -> str:
        """SHA-256 over name, size, time of writing, first and last MiB of each file: no full read."""
        digest = hashlib.sha256()
        files = [self.path] if self.is_gguf else sorted(p for p in self.path.iterdir() if p.is_file())
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name} {size} {file.stat().st_mtime_ns}\n".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(1 << 20))
                stream.seek(max(0, size - (1 << 20)))
                digest.update(stream.read())
        return digest.hexdigest()


@dataclass(frozen=True)
class Policy:
    """A loaded model with its tokenizer and decoder layers. Nothing here changes the model."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stack: LayerStack
    files: ModelFiles | None = None

    @classmethod
    def from_objects(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "", files: ModelFiles | None = None
    ) -> "Policy":
        """Wrap a loaded model. Raises `UsageError` for models that are not causal or have no layer stack."""
        policy = cls(
            name or getattr(model, "name_or_path", "") or type(model).__name__,
            model,
            tokenizer,
            find_stack(model),
            files,
        )
        _check_causal(policy)
        return policy

    @property
    def n_layers(self) -> int:
        return len(self.stack)

    @property
    def device(self) -> torch.device:
        return next(self.stack.layers.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.stack.layers.parameters()).dtype

    @property
    def context_length(self) -> int | None:
        """Longest sequence in tokens that the model was built for, or None where its config does not say."""
        config = self.model.config.get_text_config()
        names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
        return next((int(v) for v in (getattr(config, name, None) for name in names) if v), None)

    @property
    def eos_ids(self) -> list[int]:
        """Token ids that end a completion."""
        found = getattr(self.model.generation_config, "eos_token_id", None)
        ids = set(found if isinstance(found, list) else [found]) | {self.tokenizer.eos_token_id}
        return sorted(i for i in ids if i is not None)

    @property
    def pad_id(self) -> int:
        return next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)

    @property
    def tied_embeddings(self) -> bool:
        """Whether the head shares its weight with the input embeddings."""
        head, embeddings = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        return head is not None and embeddings is not None and head.weight is embeddings.weight

    @property
    def n_parameters(self) -> int:
        """Parameters of the whole model, tied weights counted once."""
        return sum(p.numel() for p in self.model.parameters())

    def fingerprint(self) -> str:
        """A hash that tells this model from others: by its files where it has any, else by its weights."""
        return self.files.fingerprint() if self.files is not None else self.weights_fingerprint()

    def weights_fingerprint(self) -> str:
        """A hash of the weights' names, shapes and sums, wherever they were loaded from. Cost: reads every weight."""
        digest = hashlib.sha256()
        for name, p in self.model.named_parameters():
            digest.update(f"{name} {tuple(p.shape)} {p.detach().double().sum().item():.10e}\n".encode())
        return digest.hexdigest()


def find_files(name: str, progress: Progress, trust_remote_code: bool = False, *, weights: bool = True) -> ModelFiles:
    """The files of a model named by a folder, a GGUF file, a hub name, or ``smollm2-135m``.

    Hub files (configuration, tokenizer, safetensors; Python code only if trusted) are fetched with huggingface_hub
    into its own cache. With `weights` False no weights are fetched: enough for `read_config` and `read_skeleton`.
    Raises `UsageError` where the name leads nowhere, with what to do.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UsageError(f"The folder '{name}' has no config.json: give a folder written by save_pretrained.")
        return ModelFiles(name, path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"The file '{name}' is not a GGUF file: give a .gguf file, a model folder or a hub name.")
        return ModelFiles(name, path)
    if name == packaged.NAME and not weights:
        return ModelFiles(name, packaged.config_folder())
    if name == packaged.NAME:
        folder = packaged.packaged_folder(progress)
        return ModelFiles(name, folder) if folder else ModelFiles(name, _fetch_from_hub(packaged.HUB_NAME, progress))
    if name.startswith((".", "/", "~")) or path.suffix == ".gguf" or name.count("/") > 1:
        raise UsageError(f"There is no file or folder '{name}'. Give an existing folder, a .gguf file or a hub name.")
    return ModelFiles(name, _fetch_from_hub(name, progress, trust_remote_code, weights))


def load_policy(
    name: str | ModelFiles,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Policy:
    """Load a policy by name (see `find_files`) or from files that were found, in evaluation mode.

    `dtype` "auto" keeps the checkpoint's, except float16 on a CPU, which becomes float32. Only safetensors and
    GGUF are read; code that comes with a model is not run unless `trust_remote_code`.
    """
    progress = progress or Progress()
    files = name if isinstance(name, ModelFiles) else find_files(name, progress, trust_remote_code)
    target = resolve_device(device)
    check_dtype(dtype)
    progress.begin("load the policy", 1)
    if files.is_gguf:
        model, tokenizer = read_gguf(files.path, DTYPES.get(dtype, torch.bfloat16))
    else:
        model, tokenizer = _read_folder(files, dtype, trust_remote_code)
    if dtype == "auto" and target.type == "cpu" and model.dtype == torch.float16:
        model = model.float()  # half precision is emulated on CPUs
    policy = Policy.from_objects(model.to(target).eval(), tokenizer, files.name, files)
    progress.advance()
    return policy


def read_config(files: ModelFiles, trust_remote_code: bool = False) -> "PretrainedConfig":
    """The model's configuration; nothing else is read."""
    from transformers import AutoConfig

    where = (files.path.parent, {"gguf_file": files.path.name}) if files.is_gguf else (files.path, {})
    try:
        return AutoConfig.from_pretrained(where[0], trust_remote_code=trust_remote_code, **where[1])
    except (ValueError, OSError, KeyError) as error:
        raise _unreadable(files, error, trust_remote_code) from error


def resolve_device(device: str) -> torch.device:
    """ "auto" is a CUDA GPU where there is one (under a launcher this process's own), else the CPU."""
    if device == "auto":
        own = os.environ.get("LOCAL_RANK")
        return torch.device(f"cuda:{own}" if own else "cuda") if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"Device '{device}' cannot be used here: {_first_line(error)} Pass --device cpu.") from error
    return found


def check_dtype(dtype: str) -> None:
    """Raise `UsageError` unless `dtype` is "auto" or one of `DTYPES`."""
    if dtype != "auto" and dtype not in DTYPES:
        raise unknown_name("dtype", dtype, ["auto", *DTYPES], "Pass one of these as --dtype.")


def read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a GGUF file into an ordinary dense model (about 20 s for 135 M parameters on two cores)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
        )
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise UsageError(f"The GGUF file '{path}' cannot be read by transformers: {_first_line(error)}") from error
    return model, tokenizer


def _read_folder(
    files: ModelFiles, dtype: str, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.path, **options)
        model, loading = AutoModelForCausalLM.from_pretrained(
            files.path, dtype=DTYPES.get(dtype, "auto"), use_safetensors=True, output_loading_info=True, **options
        )
    except (ValueError, OSError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unreadable(files, error, trust_remote_code) from error
    if loading["missing_keys"]:
        some = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UsageError(
            f"'{files.name}' lacks {len(loading['missing_keys'])} of the model's tensors ({some}, …), which would be "
            "random numbers. Give the whole checkpoint of a causal language model."
        )
    return model, tokenizer


def _unreadable(files: ModelFiles, error: Exception, trust_remote_code: bool) -> UsageError:
    reason = _first_line(error)
    if "trust_remote_code" in str(error) and not trust_remote_code:
        return UsageError(
            f"'{files.name}' brings its own Python code, which is not run unless you ask for it: "
            "read that code, then pass --trust-remote-code."
        )
    if "AutoModelForCausalLM" in str(error):
        return UsageError(f"'{files.name}' is not a causal language model: {reason} Give a decoder-only model.")
    return UsageError(
        f"'{files.name}' could not be loaded: {reason} Needed: config.json, a tokenizer and safetensors weights."
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300].rstrip(".") + "."


def _fetch_from_hub(name: str, progress: Progress, with_code: bool = False, weights: bool = True) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    progress.begin(f"look up {name} on the model hub", 1)
    patterns = ["*.json", "*.model", "*.txt", "*.jinja"]
    patterns += (["*.safetensors"] if weights else []) + (["*.py"] if with_code else [])
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns))
    except GatedRepoError as error:
        raise UsageError(
            f"The model '{name}' is gated: accept its licence on the model hub and log in (hf auth login), then run "
            "the same command again."
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        near = "" if name == packaged.HUB_NAME else f" The packaged default is called '{packaged.NAME}'."
        raise UsageError(
            f"Unknown model '{name}': it is no file or folder here, and the model hub did not give it "
            f"({type(error).__name__}).{near} Check the spelling and the connection, or give a local folder or a "
            "GGUF file."
        ) from error
    progress.advance()
    return folder


@torch.no_grad()
def _check_causal(policy: Policy) -> None:
    """Changing the last token must not change what an earlier position predicts."""
    vocabulary = policy.model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(4, device=policy.device)[None] % vocabulary
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + 1) % vocabulary
    with left_as_found(policy.model):
        policy.model.eval()
        first, second = (policy.model(input_ids=x, use_cache=False).logits[0, 0] for x in (ids, other))
    tolerance = 1e-6 if policy.dtype == torch.float32 else 1e-2  # of the largest logit: rounding only
    if (first - second).abs().max() > tolerance * first.abs().max():
        raise UsageError(
            f"'{policy.name}' ({type(policy.model).__name__}) lets a token see the ones after it, so it cannot write "
            "answers: it is an encoder. Give a causal (decoder-only) language model."
        )
