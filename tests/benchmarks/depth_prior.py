"""Error of the depth prior on published models that it was not fitted on, against simpler rules.

python tests/benchmarks/depth_prior.py [--quick]
"""

import json
import sys

import numpy as np

from calibration.depth_prior import KNOTS, RIDGE, fit_prior, published_sweeps


def errors(knots: int, ridge: float) -> np.ndarray:
    """Root-mean-square error in C on each model, fitted on the others, (n models,)."""
    sweeps = published_sweeps()
    return np.array([_error(sweep, fit_prior([s for s in sweeps if s is not sweep], knots, ridge)) for sweep in sweeps])


def _error(sweep: dict, prior) -> float:
    depth = np.array([[e["layer"] / (sweep["n_layers"] - 1)] for e in sweep["layers"]])
    return float(np.sqrt(np.mean((prior.predict(depth) - [e["contribution"] for e in sweep["layers"]]) ** 2)))


def main() -> None:
    sys.argv[1:] == ["--quick"] or sys.argv[1:] == [] or sys.exit(__doc__)
    table = {(k, r): errors(k, r) for k in (3, 4, 5) for r in (0.01, 0.1, 1.0)}
    sweeps = published_sweeps()
    constant = []
    for sweep in sweeps:
        others = [np.mean([e["contribution"] for e in s["layers"]]) for s in sweeps if s is not sweep]
        constant.append(np.sqrt(np.mean([(e["contribution"] - np.mean(others)) ** 2 for e in sweep["layers"]])))
    print(f"leave-one-model-out RMS error in C, {len(sweeps)} published models")
    print(f"{'rule':24} {'mean':>6} {'min':>6} {'max':>6}")
    print(f"{'constant':24} {np.mean(constant):6.3f} {np.min(constant):6.3f} {np.max(constant):6.3f}")
    for (k, r), e in table.items():
        mark = "  <- used" if (k, r) == (KNOTS, RIDGE) else ""
        print(f"{f'{k} knots, ridge {r}':24} {e.mean():6.3f} {e.min():6.3f} {e.max():6.3f}{mark}")
    print(
        json.dumps(
            {
                "n_models": len(sweeps),
                "constant": float(np.mean(constant)),
                "grid": {
                    f"{k}/{r}": {"mean": float(e.mean()), "min": float(e.min()), "max": float(e.max())}
                    for (k, r), e in table.items()
                },
                "used": f"{KNOTS}/{RIDGE}",
            }
        )
    )


if __name__ == "__main__":
    main()
