"""The training engine: right against TRL's learning curves, fast against TRL, step times by layer, peak memory.

    python tests/benchmarks/engine.py [--quick] [--only right,fast,steps,lean] [--model NAME]

right   native engine and TRL on the same tiny policy, data, hyper-parameters and seeds: curves and held-out scores.
fast    completions per second of single-layer training, native over TRL, on the tiny policy and on MODEL.
steps   step time of training the last, middle and first layer over full training where the update dominates.
lean    peak memory of single-layer training over full training on MODEL, each in a process of its own.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measuring import last_line, quiet, run_measured, spread, text

from probes.peak_memory import PeakMemory
from probes.policy import Policy, load_policy
from probes.scoring import score_policy
from probes.tasks import Task, load_task
from probes.training import Trainer, TrainingConfig
from probes.training.memory import training_bytes
from probes.training.trl import TRLTrainer

DATA = Path(__file__).parents[1] / "data"
TINY = TrainingConfig(steps=30, prompts_per_step=32, max_new_tokens=4, warmup_steps=3)
LONG = TrainingConfig(steps=1, prompts_per_step=8, max_new_tokens=16, warmup_steps=0)
RATES = {"full": 1e-4, "layer 3": 1e-3}  # where the tiny policy learns without collapsing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="right,fast,steps,lean")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--lean-child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet()
    if arguments.lean_child:
        lean_child(arguments.model, arguments.lean_child)
        return
    parts = arguments.only.split(",")
    figures = {}
    if "right" in parts:
        figures["right"] = right(n_seeds=2 if arguments.quick else 6)
    if "fast" in parts:
        figures["fast"] = {"tiny": fast("tiny policy", *tiny(), TINY, [3], repeats=3, n_steps=5)}
        if not arguments.quick:
            policy, task = load_policy(arguments.model), load_task("addition")
            middle = policy.n_layers // 2
            figures["fast"][arguments.model] = fast(arguments.model, policy, task, LONG, [middle], repeats=3, n_steps=1)
            del policy
    if "steps" in parts:
        figures["steps"] = steps(repeats=3 if arguments.quick else 7)
    if "lean" in parts and not arguments.quick:
        figures["lean"] = lean(arguments.model, repeats=3)
    last_line("engine", **figures)


def tiny() -> tuple[Policy, Task]:
    return load_policy(str(DATA / "tiny-policy")), load_task(data=str(DATA / "sums.jsonl"), reward="exact")


def right(n_seeds: int) -> dict:
    """Learning curves of both engines; the difference of their means beside the spread between seeds."""
    policy, task = tiny()
    figures = {}
    size = f"{TINY.steps} steps of {TINY.prompts_per_step} x {TINY.group_size} completions"
    print(f"right: {size}, {n_seeds} seeds each\n")
    print(f"{'arm':9} {'figure':24} {'native':>22} {'TRL':>22} {'difference':>11} {'seed sd':>8} {'in s.e.':>8}")
    for arm, layers in (("full", None), ("layer 3", [3])):
        curves, greedy, sampled = {}, {}, {}
        for engine in (Trainer, TRLTrainer):
            found = [train(engine, policy, task, layers, RATES[arm], seed) for seed in range(n_seeds)]
            curves[engine], greedy[engine], sampled[engine] = (np.array(x) for x in zip(*found, strict=True))
        third = TINY.steps // 3
        measures = {
            "reward, first third": {e: c[:, :third].mean(1) for e, c in curves.items()},
            "reward, second third": {e: c[:, third : 2 * third].mean(1) for e, c in curves.items()},
            "reward, last third": {e: c[:, 2 * third :].mean(1) for e, c in curves.items()},
            "held-out greedy score": greedy,
            "held-out sampled score": sampled,
        }
        for name, values in measures.items():
            a, b = values[Trainer], values[TRLTrainer]
            difference, sd = float(a.mean() - b.mean()), float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
            errors = difference / (sd * (2 / n_seeds) ** 0.5) if sd > 0 else 0.0
            print(f"{arm:9} {name:24} {text(a):>22} {text(b):>22} {difference:>+11.3f} {sd:>8.3f} {errors:>+8.2f}")
            figures[f"{arm}, {name}"] = {"native": spread(a), "trl": spread(b), "difference": difference, "seed_sd": sd}
        mean = {e: c.mean(0) for e, c in curves.items()}
        for name, engine in (("native", Trainer), ("TRL", TRLTrainer)):
            print(f"{arm:9} {name:7} curve " + " ".join(f"{v:.2f}" for v in mean[engine][::3]))
        figures[f"{arm}, curves"] = {"native": mean[Trainer].tolist(), "trl": mean[TRLTrainer].tolist()}
    print()
    return {"n": n_seeds, **figures}


def train(engine, policy: Policy, task: Task, layers, rate: float, seed: int) -> tuple[list[float], float, float]:
    config = replace(TINY, learning_rate=rate, seed=seed)
    with engine(policy, task, config, layers=layers) as trainer:
        rewards = [record.reward for record in trainer.run()]
        how = {"max_new_tokens": TINY.max_new_tokens, "samples": 8}
        scores = [score_policy(policy, task, task.held_out, decoding=d, **how).mean() for d in ("greedy", "sampled")]
    return rewards, *scores


def fast(name: str, policy: Policy, task: Task, config: TrainingConfig, layers, repeats: int, n_steps: int) -> dict:
    """Completions per second, engines in turn; the first step of each engine is warm-up and does not count."""
    engines = {
        "native": lambda c: Trainer(policy, task, c, layers=layers),
        "native, prompts repeated": lambda c: Trainer(policy, task, c, layers=layers, share_prompts=False),
        "TRL": lambda c: TRLTrainer(policy, task, c, layers=layers),
    }
    rates = {engine: [] for engine in engines}
    for seed in range(repeats):
        for engine, make in engines.items():
            chosen = replace(config, steps=n_steps + 1, learning_rate=1e-5, seed=seed)
            with make(chosen) as trainer:
                seconds = [record.seconds for record in trainer.run()][1:]
            rates[engine].append(config.prompts_per_step * config.group_size * n_steps / sum(seconds))
    where = f"layer {layers[0]} of {policy.n_layers}, {str(policy.dtype)[6:]}"
    print(f"fast: {name}, {where}, {repeats} seeds, {n_steps} steps each\n")
    print(f"{'engine':26} {'completions a second':>30} {'native over it':>26}")
    figures = {}
    for engine, values in rates.items():
        ratios = np.array(rates["native"]) / np.array(values)
        print(f"{engine:26} {text(values):>30} {text(ratios):>26}")
        figures[engine] = {"completions_a_second": spread(values), "native_over_it": spread(ratios), "n": repeats}
    print(flush=True)
    return figures


def steps(repeats: int) -> dict:
    """Step times on an untrained 12-layer Llama, each batch used for 4 updates so that the update dominates."""
    policy, task = update_dominates()
    config = TrainingConfig(prompts_per_step=8, max_new_tokens=4, updates_per_batch=4, learning_rate=1e-6)
    arms = {"all parameters": None, "last layer": [11], "middle layer": [6], "first layer": [0]}
    seconds = {arm: [] for arm in arms}
    for seed in range(repeats + 1):  # the first is warm-up
        for arm, layers in arms.items():
            with Trainer(policy, task, replace(config, seed=seed), layers=layers) as trainer:
                seconds[arm].append(trainer.step().seconds)
    figures = {}
    print(f"steps: Llama of 12 layers, hidden 384, prompts of 96 tokens, 4 updates a batch, {repeats} repeats\n")
    print(f"{'trained':16} {'seconds a step':>24} {'over all parameters':>26}")
    for arm, values in seconds.items():
        ratios = np.array(values[1:]) / np.array(seconds["all parameters"][1:])
        print(f"{arm:16} {text(values[1:]):>24} {text(ratios):>26}")
        figures[arm] = {"seconds": spread(values[1:]), "over_all": spread(ratios), "n": repeats}
    print(flush=True)
    return figures


def update_dominates() -> tuple[Policy, Task]:
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = load_policy(str(DATA / "tiny-policy")).tokenizer
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=1, pad_token_id=0, **shape
    )
    rng = np.random.default_rng(0)
    rows = [{"prompt": "".join(rng.choice(list("0123456789+="), 96))} for _ in range(64)]

    def reward(completions, **kwargs):
        return [float(ord(c[0]) % 2) if c else 0.0 for c in completions]

    return Policy.from_objects(AutoModelForCausalLM.from_config(config), tokenizer), Task("noise", rows, [], reward)


def lean(model: str, repeats: int) -> dict:
    """Peak resident memory of a process that loads the policy and takes one step, by what is trained."""
    figures, peaks, floors = {}, {}, {}
    for _ in range(repeats):
        for arm in ("full", "last", "middle", "first"):
            run = run_measured([sys.executable, __file__, "--model", model, "--lean-child", arm])
            found = json.loads(run.stdout.splitlines()[-1])
            peaks.setdefault(arm, []).append(found["peak_bytes"] / 2**20)
            floors[arm] = found["training_bytes"] / 2**20
    size = f"one step of {LONG.prompts_per_step} x {LONG.group_size} completions"
    print(f"lean: {model}, {size}, {repeats} processes each\n")
    print(f"{'trained':16} {'peak MiB':>30} {'over full':>24} {'forecast state MiB':>19} {'over full':>10}")
    for arm, values in peaks.items():
        ratios = np.array(values) / np.array(peaks["full"])
        share = floors[arm] / floors["full"]
        print(f"{arm:16} {text(values):>30} {text(ratios):>24} {floors[arm]:>19.0f} {share:>10.2f}")
        figures[arm] = {
            "peak_mib": spread(values),
            "over_full": spread(ratios),
            "forecast_mib": floors[arm],
            "n": repeats,
        }
    print(flush=True)
    return figures


def lean_child(model: str, arm: str) -> None:
    peak = PeakMemory(torch.device("cpu"))  # a child's own mark would begin at its parent's size
    policy, task = load_policy(model), load_task("addition")
    layers = {"full": None, "last": [policy.n_layers - 1], "middle": [policy.n_layers // 2], "first": [0]}[arm]
    with Trainer(policy, task, LONG, layers=layers) as trainer:
        trainer.step()
    print(json.dumps({"training_bytes": training_bytes(policy, layers), "peak_bytes": peak.bytes()}))


if __name__ == "__main__":
    main()
