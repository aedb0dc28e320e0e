"""How often the 90 % intervals of gain, difference and contribution hold the truth, on simulated measurements.

    python tests/benchmarks/intervals.py [--quick]

Each measurement: 128 held-out prompts, half of them hard, answered right or wrong by the base policy (mean 0.4), by
full training (gain 0.25) and by two layers (gain 0.2 each, so C is 0.8 and their difference 0); every seed moves each
arm's true score by a normal deviation.
"""

import argparse
import itertools

import numpy as np
from measuring import last_line

from calibration.contribution import Scores

N_PROMPTS, FULL, LAYER = 128, 0.25, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    n = 60 if parser.parse_args().quick else 400
    print(f"coverage of nominal 90 % intervals, {n} simulated measurements a row\n")
    print(f"{'seeds':>5} {'seed sd':>8} {'gain':>6} {'difference':>11} {'C':>6} {'no C shown':>11} {'width of C':>11}")
    figures = []
    for n_seeds, seed_sd in itertools.product((1, 2, 3, 5), (0.0, 0.02, 0.05, 0.1)):
        found = [
            measurement(np.random.default_rng([i, n_seeds, round(seed_sd * 100)]), n_seeds, seed_sd) for i in range(n)
        ]
        gain, difference, share, width = (np.array([f[j] for f in found], dtype=float) for j in range(4))
        shown = ~np.isnan(share)
        row = {
            "seeds": n_seeds,
            "seed_sd": seed_sd,
            "gain": gain.mean(),
            "difference": difference.mean(),
            "contribution": share[shown].mean(),
            "not_shown": 1 - shown.mean(),
            "width": float(np.median(width[shown])),
        }
        figures.append(row)
        print(
            f"{n_seeds:>5} {seed_sd:>8} {row['gain']:>6.2f} {row['difference']:>11.2f} {row['contribution']:>6.2f} "
            f"{row['not_shown']:>11.2f} {row['width']:>11.2f}"
        )
    last_line("intervals", n=n, rows=figures)


def measurement(rng: np.random.Generator, n_seeds: int, seed_sd: float) -> tuple:
    """Whether each interval holds the truth (NaN: no contribution shown), and the width of that of C."""
    chance = np.where(rng.random(N_PROMPTS) < 0.5, 0.1, 0.7)

    def answers(gain: float, rows: int) -> np.ndarray:
        moved = chance + gain + seed_sd * rng.normal(size=(rows, 1))
        return (rng.random((rows, N_PROMPTS)) < np.clip(moved, 0, 1)).astype(float)

    base = (rng.random(N_PROMPTS) < chance).astype(float)
    gains = {"full": FULL, "a": LAYER, "b": LAYER}
    scores = Scores(base, {arm: dict(enumerate(answers(gain, n_seeds))) for arm, gain in gains.items()})
    gain, difference, share = scores.gain("a"), scores.difference("a", "b"), scores.contribution("a", "full")
    held = (gain.low <= LAYER <= gain.high, difference.low <= 0 <= difference.high)
    if share is None:
        return *held, np.nan, np.nan
    return *held, share.low <= LAYER / FULL <= share.high, share.high - share.low


if __name__ == "__main__":
    main()
