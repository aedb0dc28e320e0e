"""Time and peak memory of the main job, `advisor recommend MODEL`, as whole processes in fresh folders.

    python tests/benchmarks/recommend.py [--quick] [--model NAME] [--repeats N] [--efforts A,B]

Each run has another seed, so the picks also show how far rollouts move the ranking: the Spearman correlation of the
scores and of each probe column between seeds is printed. The model must have been fetched before.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import last_line, run_measured, spread, text
from scipy.stats import spearmanr

DATA = Path(__file__).parents[1] / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--efforts", default="static,probe,warmup")
    arguments = parser.parse_args()
    options = [arguments.model]
    if arguments.quick:
        options = [str(DATA / "tiny-policy"), "--data", str(DATA / "sums.jsonl"), "--reward", "exact"]
    found, runs = {}, {}
    for effort in arguments.efforts.split(","):
        found[effort], runs[effort] = [], []
        for seed in range(arguments.repeats):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "advisor.cli", "recommend", "--json", "--effort", effort]
                command += ["--seed", str(seed), "--output-dir", f"{folder}/run"]
                command += options[:1] if effort == "static" else options
                run = run_measured(command)
            runs[effort].append(run)
            found[effort].append(json.loads(run.stdout))
    report(Path(options[0]).name, runs, found)


def report(model: str, runs: dict, found: dict) -> None:
    figures = {}
    print(f"{model}; median (min to max) over seeds; whole processes, fetch not included\n")
    print(f"{'effort':8} {'n':>2} {'seconds':>28} {'peak MiB':>28}  picks by seed")
    for effort, results in found.items():
        seconds, peaks = [r.seconds for r in runs[effort]], [r.peak_bytes / 2**20 for r in runs[effort]]
        picks = [result["pick"] for result in results]
        print(f"{effort:8} {len(results):2} {text(seconds):>28} {text(peaks):>28}  {picks}")
        for race in (result["race"] for result in results if result["race"]):
            told = [(r["step"], len(r["standings"]), r["standings"][0]["layer"], r["seconds"]) for r in race["rungs"]]
            print(f"{'':8} race (step, arms, leader, seconds): {told}; {race['arm_steps']} steps of a layer")
        figures[effort] = {"n": len(results), "seconds": spread(seconds), "peak_mib": spread(peaks), "picks": picks}
    agreement = {}
    results = next((found[effort] for effort in ("probe", "warmup") if effort in found), None)
    if results is None:
        last_line("recommend", model=model, efforts=figures)
        return
    names = ["contribution", *results[0]["layers"][0]["probes"]]
    for name in names:
        values = [
            [la["contribution"] if name == "contribution" else la["probes"][name] for la in r["layers"]]
            for r in results
        ]
        if np.ptp(values[0]) > 0 and len(values) > 1:
            pairs = [float(spearmanr(a, b).statistic) for a, b in itertools.combinations(values, 2)]
            agreement[name] = spread(pairs)
    print("\nSpearman correlation over layers between seeds (other prompts, other samples), and with depth")
    for name, values in agreement.items():
        depth = results[0]["probes"][name]["depth_correlation"] if name != "contribution" else None
        shown = f"{depth:6.2f}" if depth is not None else "     –"
        print(f"{name:20} {values['median']:5.2f} ({values['min']:.2f} to {values['max']:.2f})  depth {shown}")
    reward = results[0]["reward"]
    print(
        f"\nseed 0: {reward['groups']} groups, {reward['share_without_spread']:.0%} without spread, mean reward "
        f"{reward['mean']:.3f}, held-out {reward['held_out_mean']:.3f} ± {reward['held_out_standard_error']:.3f}"
    )
    last_line("recommend", model=model, efforts=figures, seed_agreement=agreement)


if __name__ == "__main__":
    main()
