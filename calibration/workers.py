"""Where runs are performed: in this process, in a pool of processes, or on a Ray cluster.

Every way yields each record as soon as its run is done; what has been yielded is the caller's to keep. A worker that is
killed costs only the run it was at, which is begun again elsewhere.
"""

import json
import multiprocessing
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from calibration.protocol import Protocol, split_task
from calibration.runs import Run, perform
from probes.errors import AdvisorError, RunError, UsageError
from probes.policy import Policy, load_policy
from probes.tasks import Task, reload_task
from probes.training.state import TrainingState

_TRIES = 3  # of one run whose worker died


@dataclass(frozen=True)
class WorkOrder:
    """All that a worker needs to perform runs: by name and as plain values, so that it travels."""

    model: str
    device: str
    dtype: str
    trust_remote_code: bool
    task_origin: str  # JSON, as `probes.tasks.reload_task` takes it
    task_fingerprint: str  # of the prompts, so that data changed meanwhile is found out
    protocol: Protocol
    threads: int = 1
    saved: dict[str, str] = field(default_factory=dict)  # where trained weights go, by the run's key
    start: str = ""  # file of a warm-up's state; where it is not found, its run begins anew, with the same numbers


Finished = Iterator[tuple[Run, dict[str, Any]]]
Workers = Callable[[WorkOrder, Sequence[Run]], Finished]


def in_processes(n_workers: int) -> Workers:
    """A pool of `n_workers` fresh processes, each with its own copy of the policy."""

    def work(order: WorkOrder, runs: Sequence[Run]) -> Finished:
        left, tries = list(runs), dict.fromkeys(runs, 0)
        while left:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(min(n_workers, len(left)), context, initializer=_start_worker)
            try:
                futures = {pool.submit(perform_order, order, run): run for run in left}
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in sorted(done, key=lambda f: f.exception() is not None):  # good records first
                        record = future.result()
                        left.remove(futures[future])
                        yield futures[future], record
            except BrokenProcessPool as error:
                # Which run killed its worker is not told: all that were under way are tried again, a few times.
                for run in left[:n_workers]:
                    tries[run] += 1
                if max(tries.values()) >= _TRIES:
                    raise RunError(
                        f"A worker died {_TRIES} times, perhaps for lack of memory. Finished runs are kept: run the "
                        "same command with fewer --workers."
                    ) from error
            finally:
                for process in list((pool._processes or {}).values()):
                    process.terminate()
                pool.shutdown(wait=True, cancel_futures=True)

    return work


def on_ray(address: str | None, n_workers: int) -> Workers:
    """A Ray cluster at `address`, or one of `n_workers` workers on this machine where None.

    The package, the model's files and the data must be found under the same names on every node.
    """

    def work(order: WorkOrder, runs: Sequence[Run]) -> Finished:
        try:
            import ray
        except ImportError as error:
            raise UsageError("--ray needs Ray: pip install 'layer-advisor[ray]'.") from error
        own = not ray.is_initialized()
        if own:
            _check_address(address)
            try:
                ray.init(
                    address=address if address else "local",
                    num_cpus=None if address else n_workers * order.threads,
                    log_to_driver=False,
                    logging_level="ERROR",
                    include_dashboard=False,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(f"No Ray cluster answers at '{address}': {str(error).splitlines()[0]}") from error
        try:
            gpus = {"num_gpus": 1} if order.device.startswith("cuda") else {}
            remote = ray.remote(max_retries=_TRIES, num_cpus=order.threads, **gpus)(perform_order)
            pending = {remote.remote(order, run): run for run in runs}
            failure = None
            while pending and failure is None:
                ray.wait(list(pending), num_returns=1)
                done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
                for reference in done:
                    run = pending.pop(reference)
                    try:
                        record = _from_ray(ray, reference)
                    except AdvisorError as error:
                        failure = error  # raised when the good records beside it have been given
                    else:
                        yield run, record
            if failure is not None:
                raise failure
        finally:
            if own:
                ray.shutdown()

    return work


def _check_address(address: str | None) -> None:
    """Raise `UsageError` where nothing listens at a host:port; Ray itself would try for minutes."""
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    if match:
        try:
            socket.create_connection((match.group(1), int(match.group(2))), timeout=5).close()
        except OSError as error:
            raise UsageError(
                f"No Ray cluster answers at '{address}' ({error.strerror or error}). Give another address, or --ray "
                "alone for one on this machine."
            ) from error


def perform_order(order: WorkOrder, run: Run) -> dict[str, Any]:
    """What a worker does with one run."""
    import torch

    torch.set_num_threads(order.threads)
    policy, task = _loaded(order.model, order.device, order.dtype, order.trust_remote_code, order.task_origin)
    if task.fingerprint() != order.task_fingerprint:
        raise UsageError("The data has changed since the run began: put it back, or begin a run in another folder.")
    file = order.saved.get(run.key)
    split = split_task(task, order.protocol)
    begun = Path(order.start) if order.start else None
    start = TrainingState.load(begun) if begun and begun.exists() else None
    return perform(policy, task, split, order.protocol, run, save_to=Path(file) if file else None, start=start)


@lru_cache(maxsize=1)
def _loaded(model: str, device: str, dtype: str, trust_remote_code: bool, task_origin: str) -> tuple[Policy, Task]:
    """The policy and task of this worker, loaded once."""
    from transformers.utils import logging

    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    policy = load_policy(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    return policy, reload_task(json.loads(task_origin))


def _from_ray(ray, reference) -> dict[str, Any]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, AdvisorError):
            raise cause from None
        raise RunError(f"A run failed on the Ray cluster: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise RunError(
            f"The Ray cluster lost a run {_TRIES} times: {str(error).splitlines()[0]}. Finished runs are kept: run the "
            "same command again."
        ) from error


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and do not outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
