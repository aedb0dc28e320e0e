"""How good the race's pick is, and what it costs: against full sweeps of small policies that it has not seen.

    python -m calibration.zoo ZOO      # small policies, half-taught
    advisor sweep ZOO/MEMBER/SKILL --data ZOO/MEMBER/SKILL/rl.jsonl --reward exact --seeds 2 \\
        --held-out 512 --learning-rates 1e-4,3e-4,1e-3,3e-3 --validation 256 --output-dir SWEEPS/NAME
    python tests/benchmarks/racing.py SWEEPS [--quick]

For each sweep (the truth), all layers at all its rates warm up together, with seeds that the sweep did not use, on
completions of the base policy (`base`) and on their own (`own`), and scored at every rung. Races are then run on these
records, so that many rules are compared on the same training. Records are kept in SWEEPS/NAME/warmups.jsonl.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measuring import last_line, quiet, spread, text
from scipy.stats import spearmanr

from calibration.protocol import Protocol, split_task
from calibration.race import RaceRules, judge_rung
from probes.policy import load_policy
from probes.registry import DECODINGS
from probes.tasks import reload_task
from probes.training import TrainingConfig
from probes.training.joint import JointTrainer

RUNGS = (2, 4, 8, 16)
MODES = {"base": RUNGS[-1], "own": 0}  # base_steps
PROMPTS, SAMPLES = 128, 2
MIN_GAIN = 0.02  # of full-parameter training: below, there is no contribution to measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, two sweeps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="judge what is recorded already")
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(arguments.threads)
    folders = sorted(file.parent for file in arguments.sweeps.glob("*/sweep.json"))
    seeds = [101 + i for i in range(1 if arguments.quick else arguments.seeds)]
    pairs = []
    for folder in folders[: 2 if arguments.quick else None]:
        found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        records = recorded(folder, found, seeds, record_more=not arguments.no_record)
        if records:
            pairs.append((folder, found, records))
    last_line("racing", **judged(pairs))


def recorded(folder: Path, found: dict, seeds: list[int], record_more: bool) -> list[dict]:
    """The warm-ups of one policy: those on file, and the missing ones made now."""
    file = folder / "warmups.jsonl"
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    done = {(r["mode"], r["seed"]) for r in records}
    missing = [(mode, seed) for mode in MODES for seed in seeds if (mode, seed) not in done]
    if missing and record_more:
        policy, task = load_policy(found["model"]["name"], device="cpu"), reload_task(found["task"]["origin"])
        for mode, seed in missing:
            record = warm_up(policy, task, found, mode, seed)
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
            records.append(record)
            print(f"{folder.name}, {mode}, seed {seed}: {record['seconds']:.0f} s", flush=True)
    return [r for r in records if r["seed"] in seeds]


def warm_up(policy, task, found: dict, mode: str, seed: int) -> dict:
    """Train all arms to the last rung; scores by rung, decoding and arm."""
    start, told = time.perf_counter(), found["protocol"]
    names = ("algorithm", "prompts_per_step", "group_size", "warmup_steps", "temperature", "max_new_tokens", "kl")
    training = TrainingConfig(**{name: told[name] for name in names}, seed=seed, base_steps=MODES[mode])
    # The same split as the sweep's, so that its held-out prompts stay unseen.
    split = split_task(task, Protocol(replace(training, seed=told["seeds"][0]), validation=told["validation"]))
    arms = [(k, rate) for k in range(policy.n_layers) for rate in told["learning_rates"]]
    rungs = []
    with JointTrainer(policy, task, training, arms, rows=split.train) as trainer:
        while trainer.steps_done < RUNGS[-1]:
            records = trainer.step()
            if trainer.steps_done in RUNGS:
                rung = {"step": trainer.steps_done, "scores": {}, "rewards": {}}
                rung["rewards"] = {f"{k},{rate:g}": records[k, rate].reward for k, rate in records}
                for decoding in DECODINGS:
                    base, scores = trainer.score(split.validation[:PROMPTS], decoding=decoding, samples=SAMPLES)
                    rung["scores"][decoding] = {f"{k},{rate:g}": v.tolist() for (k, rate), v in scores.items()}
                    rung["scores"][decoding]["base"] = base.tolist()
                rungs.append(rung)
    return {"mode": mode, "seed": seed, "rungs": rungs, "seconds": time.perf_counter() - start}


class Truth:
    """What a sweep says of each layer under a decoding: held-out score (L,) over seeds at the rate that validation
    chose, and contribution (L,); ``agreement`` is the Spearman correlation of the scores between its seeds."""

    def __init__(self, folder: Path, found: dict, decoding: str) -> None:
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
        protocol, seeds = found["protocol"], found["protocol"]["seeds"]
        runs = {(r["arm"], r["seed"], r["rate"]): r for r in (e["value"] for e in lines if e["kind"] == "run")}
        base = next(e["value"]["record"] for e in lines if e["kind"] == "base")
        self.base = float(np.mean(base["held_out"][decoding]))

        def by_seed(arm: str) -> list[float]:
            best = max(
                protocol["learning_rates"],
                key=lambda rate: np.mean([_validation(runs[arm, seed, rate], decoding) for seed in seeds]),
            )
            return [float(np.mean(runs[arm, seed, best]["held_out"][decoding])) for seed in seeds]

        layers = np.array([by_seed(f"layer {k}") for k in range(found["model"]["n_layers"])])
        self.scores, self.full = layers.mean(1), float(np.mean(by_seed("full")))
        self.agreement = float(spearmanr(layers[:, 0], layers[:, 1]).statistic)
        n_rates, steps = len(protocol["learning_rates"]), protocol["steps"]
        # One seed at every rate is the cheapest sweep that answers the question; in completions, scoring included.
        answers = protocol["held_out"] + protocol["validation"]
        per_run = steps * protocol["prompts_per_step"] * protocol["group_size"] + answers
        self.sweep_cost = len(layers) * n_rates * per_run
        self.completions = protocol["prompts_per_step"] * protocol["group_size"]

    def regret(self, layer: int) -> tuple[float, float]:
        """Of picking `layer`: in score, and in C."""
        lost = float(self.scores.max() - self.scores[layer])
        return lost, lost / (self.full - self.base)


def _validation(run: dict, decoding: str) -> float:
    return -1.0 if run["failed"] else run["validation"][decoding]


def race(record: dict, decoding: str, rules: RaceRules, truth: Truth) -> tuple[int, float]:
    """The pick of a race run on a record, and its cost as a share of the sweep."""
    samples = 1 if decoding == "greedy" else SAMPLES
    by_step = {rung["step"]: rung["scores"][decoding] for rung in record["rungs"]}
    live = {_arm(name) for name in by_step[RUNGS[0]] if name != "base"}
    spent, before = 0.0, 0
    for index, step in enumerate(rules.rungs):
        found = {_arm(name): np.array(v) for name, v in by_step[step].items() if name != "base"}
        scores = {arm: found[arm] for arm in sorted(live) if arm in found}
        spent += len(scores) * ((step - before) * truth.completions + PROMPTS * samples)
        rung = judge_rung(step, np.array(by_step[step]["base"]), scores, rules, index=index)
        live = {(s.layer, s.rate) for s in rung.standings if s.out is None}
        before = step
        if len(live) == 1:
            break
    return rung.standings[0].layer, spent / truth.sweep_cost


def _arm(name: str) -> tuple[int, float]:
    layer, rate = name.split(",")
    return int(layer), float(rate)


NO_DROPS = {"z": 1e9, "keep": 1.0, "rate_rung": 99}
STRATEGIES: dict[str, RaceRules] = {
    "race (default)": RaceRules(rungs=(2, 4, 8)),
    "race to 16": RaceRules(rungs=(2, 4, 8, 16)),
    "race, surely behind only": RaceRules(rungs=(2, 4, 8, 16), keep=1.0),
    "race, halving only": RaceRules(rungs=(2, 4, 8, 16), z=1e9),
    "race, from step 4": RaceRules(rungs=(4, 8, 16)),
    "race, rates to rung 2": RaceRules(rungs=(2, 4, 8), rate_rung=1),
    **{f"all layers, pick at step {step}": RaceRules(rungs=(step,), **NO_DROPS) for step in RUNGS},
}


def judged(pairs: list[tuple[Path, dict, list[dict]]]) -> dict:
    """Regret and cost of every strategy, by decoding and mode: a table, and the same as figures."""
    figures: dict = {}
    for decoding in DECODINGS:
        truths = {folder: Truth(folder, found, decoding) for folder, found, _ in pairs}
        kept = [p for p in pairs if truths[p[0]].full - truths[p[0]].base >= MIN_GAIN]
        print(f"\n{decoding}: {len(kept)} of {len(pairs)} sweeps with a gain of at least {MIN_GAIN}")
        print("full gain", ", ".join(f"{p[0].name} {truths[p[0]].full - truths[p[0]].base:+.2f}" for p in pairs))
        if not kept:
            figures[decoding] = {"n": 0}
            continue
        print("agreement of the sweeps' seeds:", text([truths[p[0]].agreement for p in kept]))
        print(f"{'strategy':36} {'regret in C: mean (min to max)':>32} {'in score':>9} {'cost':>6}")
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for folder, found, records in kept:
            truth, n = truths[folder], found["model"]["n_layers"]
            for name, layer in {"middle layer": n // 2, "first": 0, "last": n - 1, "best of the sweep": None}.items():
                layer = int(truth.scores.argmax()) if layer is None else layer
                rows.setdefault(name, []).append((*truth.regret(layer), float(name.startswith("best"))))
            every = np.array([truth.regret(k) for k in range(n)]).mean(0)
            rows.setdefault("random layer", []).append((*every, 0.0))
            for name, rules in STRATEGIES.items():
                for mode in MODES:
                    results = []
                    for record in (r for r in records if r["mode"] == mode):
                        layer, cost = race(record, decoding, rules, truth)
                        results.append((*truth.regret(layer), cost))
                    if results:
                        rows.setdefault(f"{name} [{mode}]", []).append(tuple(np.mean(results, 0)))
            for mode in MODES:
                steps = [rows.get(f"all layers, pick at step {step} [{mode}]") for step in RUNGS]
                if all(steps):
                    anyhow = np.mean([found[-1] for found in steps], 0)
                    rows.setdefault(f"all layers, random budget [{mode}]", []).append(tuple(anyhow))
        told = {
            p[0].name: {
                "policy": {name: p[1]["model"][name] for name in ("class", "n_layers", "parameters")},
                "base": round(truths[p[0]].base, 4),
                "full": round(truths[p[0]].full, 4),
                "layers": [round(float(score), 4) for score in truths[p[0]].scores],
            }
            for p in pairs
        }
        figures[decoding] = {
            "n": len(kept),
            "sweeps": told,
            "agreement": spread([truths[p[0]].agreement for p in kept]),
        }
        for name, values in rows.items():
            score, c, cost = np.array(values).T
            cell = f"{c.mean():.3f} ({c.min():.3f} to {c.max():.3f})"
            print(f"{name:36} {cell:>32} {score.mean():9.3f} {cost.mean():6.3f}")
            figures[decoding][name] = {
                "regret_c": {"mean": float(c.mean()), "min": float(c.min()), "max": float(c.max())},
                "regret_score": float(score.mean()),
                "cost": float(cost.mean()),
                "by_sweep": {p[0].name: round(float(v), 4) for p, v in zip(kept, c, strict=True)},
            }
        for name in ("race (default) [base]", "race (default) [own]"):
            if name in rows:
                figures[decoding][f"{name} against"] = compared(rows, name)
    return figures


def compared(rows: dict[str, list[tuple[float, float, float]]], name: str) -> dict:
    """By how much less C a strategy loses than rules of position, paired by sweep, with the standard error."""
    found = {}
    for other in ("middle layer", "first", "last", "random layer"):
        less = np.array([theirs[1] - own[1] for own, theirs in zip(rows[name], rows[other], strict=True)])
        error = float(less.std(ddof=1) / len(less) ** 0.5) if len(less) > 1 else float("nan")
        wins = int((less > 0).sum())
        print(f"{name} loses {less.mean():+.3f} ± {error:.3f} less than {other}, better on {wins} of {len(less)}")
        found[other] = {"less": float(less.mean()), "standard_error": error, "better_on": wins}
    return found


if __name__ == "__main__":
    main()
