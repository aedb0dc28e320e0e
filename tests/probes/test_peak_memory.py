import sys

import pytest
import torch

from probes.peak_memory import PeakMemory, release_free_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is reset on Linux only")
def test_runs_in_one_process_are_told_apart():
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    big = torch.ones(64 << 20, dtype=torch.uint8)
    big.add_(1)
    assert peak.bytes() - before > 60 << 20
    del big
    release_free_memory()
    again = PeakMemory(torch.device("cpu"))
    assert again.bytes() < peak.bytes() + 1  # reset: never above what it was
    assert again.bytes() - before < 32 << 20
