"""Sweeps without training: records looked up from a planted truth."""

import numpy as np

from calibration.protocol import Protocol
from calibration.runs import Run
from calibration.sweep import Sweep, measure_contributions
from probes.training import TrainingConfig

N = 60
TRUTH = {(0,): 0.3, (1,): 0.6, (2,): 0.5, (3,): 0.35, None: 0.7}  # held-out score after training
BEST_RATE = {(0,): 1e-5, (1,): 1e-4, (2,): 1e-4, (3,): 1e-3, None: 1e-5}
RATES = (1e-5, 1e-4, 1e-3)


def record(run: Run, value: float, failed: str | None = None) -> dict:
    found = {"arm": run.arm, "layers": run.layers and list(run.layers), "seed": run.seed, "rate": run.learning_rate}
    found |= {"curve": [{"reward": value * i / 3} for i in (1, 2, 3)], "seconds": 60.0, "peak_memory_bytes": 1 << 30}
    if failed:
        return found | {"failed": failed}
    scores = (np.arange(N) < value * N).astype(float).tolist()
    held_out = {"greedy": scores, "sampled": scores[::-1]}
    return found | {"failed": None, "validation": {"greedy": value, "sampled": 1 - value}, "held_out": held_out}


class Planted:
    """Performs runs by looking the truth up; a rate that is not the arm's best costs 0.2. Counts what it was asked."""

    def __init__(self, broken=(), stop_after=None, truth=TRUTH) -> None:
        self.asked, self.broken, self.stop_after, self.truth = [], set(broken), stop_after, truth

    def __call__(self, runs):
        for run in runs:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(run.key)
            value = self.truth[run.layers] - 0.2 * (run.learning_rate != BEST_RATE[run.layers]) + 0.01 * run.seed
            broken = (run.layers, run.learning_rate) in self.broken or run.layers in self.broken
            yield run, record(run, value, "step 3: the loss is not finite" if broken else None)


def measured(perform, rate_by="every_seed", memory=None, **changes) -> Sweep:
    protocol = Protocol(TrainingConfig(steps=3), learning_rates=RATES, seeds=3, rate_by=rate_by, **changes)
    base = record(Run(None, 0, 0.0), 0.2)
    return measure_contributions(protocol, list(TRUTH), base, perform, memory=memory)
