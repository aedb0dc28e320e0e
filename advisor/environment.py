"""What a result was made with: package versions, machine, threads."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

_PACKAGES = (
    "torch",
    "transformers",
    "scikit-learn",
    "mapie",
    "numpy",
    "scipy",
    "captum",
    "safetensors",
    "tokenizers",
    "accelerate",
    "gguf",
    "reasoning-gym",
    "trl",
    "ray",
)


def environment() -> dict[str, Any]:
    """Versions and machine facts as plain JSON. Imports torch (about two seconds)."""
    import torch

    return {
        "layer_advisor": version(),
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: found for name in _PACKAGES if (found := _version_of(name))},
    }


def version() -> str:
    """Version of the distribution."""
    return _version_of("layer-advisor") or "unknown"


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far; None where the platform does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory_bytes(device: Any) -> int | None:
    """Memory that is free on a torch device; None where that is not told."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()  # what torch holds back is free too
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, AttributeError):
        return None
