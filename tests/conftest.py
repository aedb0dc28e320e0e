"""A tiny trained policy with its task and rollouts, and an untrained policy of every architecture."""

import os

import pytest
import torch
from policies import ARCHITECTURES, SUMS, TINY, make_model

from probes.policy import Policy, load_policy
from probes.rollouts import Rollouts, SamplingConfig, collect_rollouts
from probes.tasks import load_task


@pytest.fixture(scope="session")
def _tiny() -> Policy:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    return load_policy(str(TINY), device="cpu")


@pytest.fixture
def tiny(_tiny: Policy) -> Policy:
    """The trained tiny policy; whatever a test does to it must be undone by the code under test."""
    return _tiny


@pytest.fixture
def own_tiny() -> Policy:
    """A copy of the tiny policy that a test may spoil."""
    return load_policy(str(TINY), device="cpu")


@pytest.fixture(scope="session")
def sums():
    """The task that the tiny policy knows in part."""
    return load_task(data=str(SUMS), reward="exact")


@pytest.fixture(scope="session")
def rollouts(_tiny: Policy, sums) -> Rollouts:
    """Real rollouts of the tiny policy."""
    return collect_rollouts(_tiny, sums, SamplingConfig(groups=12, max_prompts=48, max_new_tokens=4))


@pytest.fixture(params=ARCHITECTURES)
def architecture(request, tiny: Policy) -> Policy:
    """An untrained policy of each architecture, with the tiny tokenizer."""
    return Policy.from_objects(make_model(request.param), tiny.tokenizer, request.param)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    import sys

    from advisor.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["advisor", *arguments])
        monkeypatch.setenv("COLUMNS", "100")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run
