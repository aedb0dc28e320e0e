"""Largest memory of this process while something runs."""

import ctypes
import re
import sys
from pathlib import Path

import torch


def release_free_memory() -> None:
    """Give back to the system what the C library keeps of freed memory, gigabytes after many sampling steps (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl has none
            trim(0)


class PeakMemory:
    """Peak bytes since it was made: allocated on the GPU where `device` is one, else resident memory of the process.

    On Linux the kernel's high-water mark is reset at the start, so that runs in one process are told apart; elsewhere
    `bytes` is None on the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.known = device.type == "cuda" or sys.platform == "linux"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif self.known:
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:  # not allowed in this container: the mark would be that of the whole process
                self.known = False

    def bytes(self) -> int | None:
        if not self.known:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
