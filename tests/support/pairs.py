"""Pairs of a corpus with planted contributions, made without training anything."""

import numpy as np

from calibration.corpus.records import Pair
from calibration.protocol import Protocol
from calibration.race import ANSWERS, EXPECTED
from calibration.runs import Run
from probes.registry import DECODINGS, list_columns
from probes.training import TrainingConfig

RATE, HELD_OUT, VALIDATION = 1e-3, 400, 64
PROTOCOL = Protocol(TrainingConfig(steps=8), (RATE,), seeds=2, held_out=HELD_OUT, validation=VALIDATION)


def make_pair(
    name: str, contributions, *, family="llama", member=None, task="add", gain=0.3, base=0.3, hint=None, seed=0
) -> Pair:
    """A pair whose layers contribute `contributions` (L,) but for sampling noise; the column fisher is `hint` (L,)."""
    rng = np.random.default_rng([seed, *name.encode()])
    n = len(contributions)
    luck = rng.random((len(DECODINGS), HELD_OUT))

    def answers(score, size):  # paired: prompts are as hard for every arm
        return {d: (luck[i, :size] < score).astype(float).tolist() for i, d in enumerate(DECODINGS)}

    runs = {}
    for layers, c in [((k,), contributions[k]) for k in range(n)] + [(None, 1.0)]:
        for number in PROTOCOL.seed_numbers:
            score = base + gain * c + 0.01 * rng.normal()
            run = Run(layers, number, RATE)
            runs[run.key] = {
                "arm": run.arm,
                "layers": None if layers is None else list(layers),
                "seed": number,
                "rate": RATE,
                "failed": None,
                "validation": dict.fromkeys(DECODINGS, score),
                "held_out": answers(score, HELD_OUT),
                "rewards": [score] * PROTOCOL.training.steps,
                "seconds": 1.0,
            }
    columns = {name: rng.normal(size=n).tolist() for name in list_columns("probe")}
    columns["relative_depth"] = np.linspace(0, 1, n).tolist()
    if hint is not None:
        columns["fisher"] = list(map(float, hint))
    warmup = {
        "seed": 1,
        "rungs": [
            {
                "step": step,
                "base": answers(base, VALIDATION),
                "scores": {
                    d: {
                        f"{k},{RATE:g}": answers(base + gain * c * step / 20, VALIDATION)[d]
                        for k, c in enumerate(contributions)
                    }
                    for d in DECODINGS
                },
            }
            for step in (4, 8)
        ],
        "failures": {},
        "known": 1.0,
        "scored_by": {"greedy": ANSWERS, "sampled": EXPECTED},
        "seconds": {"known": 0.2, "training": 1.0, "greedy": 0.4, "sampled": 0.4, "sampled answers": 0.3, "total": 2.0},
    }
    last = warmup["rungs"][-1]
    last["sampled_answers"] = {arm: float(np.mean(values)) for arm, values in last["scores"]["sampled"].items()}
    probes = {
        "n_layers": n,
        "columns": columns,
        "failures": {},
        "seconds": {"weights": 0.1, "gradients": 0.2, "activations": 0.1, "total": 0.5},
    }
    head = {
        "policy": {
            "family": family,
            "member": member or f"{family}-0",
            "n_layers": n,
            "fingerprint": member or f"{family}-0",
            "layer_parameters": [100] * n,
        },
        "task": {"name": task},
        "protocol": PROTOCOL.as_dict(),
        "sampled_scores": EXPECTED,
        "packages": {},
        "made": "2026-01-01",
    }
    return Pair(name, head, {"held_out": answers(base, HELD_OUT)}, runs, probes, warmup)


def planted_corpus(*, families=4, tasks=3, layers=8, strength=1.0, seed=0) -> list[Pair]:
    """Pairs whose contributions follow the column fisher (in logarithms) with this strength, and are else noise."""
    rng, found = np.random.default_rng(seed), []
    for f in range(families):
        for t in range(tasks):
            signal = rng.normal(size=layers)
            contributions = 0.6 + 0.2 * (strength * signal + (1 - strength) * rng.normal(size=layers))
            name = f"family{f}.task{t}"
            hint = np.exp(3 * signal)
            found.append(make_pair(name, contributions, family=f"family{f}", task=f"task{t}", hint=hint, seed=seed))
    return found
