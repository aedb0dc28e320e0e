"""Runs of several layers at once, beside the single layers that are measured already."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from calibration.corpus.measuring import measure_arm
from calibration.corpus.records import Pair
from calibration.protocol import Split
from calibration.runs import Run, arm_name
from probes.policy import Policy
from probes.tasks.task import Task

SIZES = (2, 3, 5)  # best layers taken together


def layer_sets(contribution: np.ndarray) -> list[tuple[int, ...]]:
    """The sets that are tried: the best 2, 3 and 5 layers, the best with its neighbour, the worst two, both ends."""
    n, order = len(contribution), [int(k) for k in np.argsort(-contribution)]
    best = order[0]
    found = [tuple(sorted(order[:size])) for size in SIZES if size < n]
    found += [tuple(sorted((best, best + 1 if best + 1 < n else best - 1))), tuple(sorted(order[-2:])), (0, n - 1)]
    return list(dict.fromkeys(found))


def measure_sets(pair: Pair, policy: Policy, task: Task, split: Split) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Every set of `layer_sets`, chosen by the greedy contributions, under the pair's protocol."""
    results = pair.sweep("greedy").results("greedy")
    gains = np.array([results[arm_name((k,))].gain.value for k in range(pair.n_layers)])
    for layers in layer_sets(gains):
        yield from measure_arm(policy, task, split, pair.protocol, pair.base, layers)
