"""Runs in pools and on Ray: the same numbers as here, and a killed worker costs only what it was at."""

import json

import pytest
from deadly import n_calls, write_reward
from policies import SUMS, TINY, Kept, task_with

from calibration.protocol import Protocol, split_task
from calibration.runs import Run, perform
from calibration.sweep import measure_contributions
from calibration.workers import WorkOrder, in_processes, on_ray
from probes.errors import RunError, UsageError
from probes.tasks import load_task, reload_task
from probes.training import TrainingConfig

STEPS = 2
CALLS = STEPS + 4  # of the reward in one run: each step, and two decodings of validation and held-out prompts
WAYS = {"processes": lambda: in_processes(2), "ray": lambda: on_ray(None, 2)}


@pytest.fixture(scope="module")
def cluster():
    """A real Ray cluster of two workers on this machine, which the tests here share."""
    import ray

    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(params=WAYS)
def way(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


def protocol(**changes) -> Protocol:
    training = TrainingConfig(steps=STEPS, prompts_per_step=4, max_new_tokens=4)
    return Protocol(training, **{"learning_rates": (1e-3,), "seeds": 1, "held_out": 40, "validation": 20, **changes})


def order(task, **changes) -> WorkOrder:
    return WorkOrder(str(TINY), "cpu", "auto", False, json.dumps(task.origin), task.fingerprint(), protocol(**changes))


def test_a_killed_worker_costs_only_the_run_it_was_at(way, tiny, tmp_path):
    """The worker that first reaches its second run's last but two calls is killed with -9."""
    task = load_task(data=str(SUMS), reward=write_reward(tmp_path, at_call=CALLS + 4))
    work, memory = WAYS[way](), Kept()
    arms = [(0,), (1,), (2,), (3,), None]
    sweep = measure_contributions(protocol(), arms, {}, lambda runs: work(order(task), runs), memory=memory)
    assert (tmp_path / "killed").exists()
    assert len(sweep.records) == len(memory.values) == 5
    extra = n_calls(tmp_path) - 5 * CALLS
    assert 0 < extra < 2 * CALLS  # a broken pool loses what its other worker was at, too
    if way == "ray":
        assert extra == 4
    here = perform(tiny, task, split_task(task, protocol()), protocol(), Run((1,), 0, 1e-3))
    there = sweep.records["layer 1, seed 0, rate 0.001"]
    assert there["validation"] == pytest.approx(here["validation"])
    assert there["curve"][1]["reward"] == here["curve"][1]["reward"]


def test_what_a_reward_raises_reaches_the_user(way, tmp_path):
    (tmp_path / "bad.py").write_text("def reward(completions, **kwargs):\n    raise ZeroDivisionError('by zero')\n")
    task = load_task(data=str(SUMS), reward=f"{tmp_path / 'bad.py'}:reward")
    with pytest.raises(RunError, match="'reward' raised ZeroDivisionError: by zero"):
        list(WAYS[way]()(order(task), [Run((0,), 0, 1e-3)]))


def test_no_cluster_at_an_address(sums, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(UsageError, match="No Ray cluster answers at '127.0.0.1:1'"):
        list(on_ray("127.0.0.1:1", 1)(order(sums), [Run((0,), 0, 1e-3)]))


def test_tasks_travel_by_their_origin(sums):
    assert reload_task(json.loads(json.dumps(sums.origin))).fingerprint() == sums.fingerprint()
    addition = load_task("addition", seed=3)
    assert reload_task(addition.origin).fingerprint() == addition.fingerprint()
    gym = load_task("reasoning-gym:basic_arithmetic", config={"min_terms": 2, "max_terms": 3}, seed=1)
    assert reload_task(gym.origin).fingerprint() == gym.fingerprint()
    with pytest.raises(UsageError, match="made in Python cannot be sent"):
        reload_task(task_with(sums, print, origin={}).origin)
