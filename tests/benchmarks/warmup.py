"""Warming up every layer at once: fast against one layer after another, lean against the forecast, and what bounds it.

    python tests/benchmarks/warmup.py [--quick] [--only tiny,model,profile,lean] [--model NAME] [--device D]

tiny      an untrained 8-layer policy: K steps of all layers together over one after another, repeated in turn.
model     the same on MODEL, all layers together; one after another is measured on layers spread over the depth and
          scaled to all of them (the time of a step is close to linear in depth).
profile   where the time of a step goes, per layer in training, alone and together.
lean      peak memory of a process that warms up all layers of MODEL, beside the forecast from parameter counts.

Each is measured with completions of the base policy (`base`) and with each layer's own (`own`); "alone" is the ordinary
`Trainer` with the same setting, so that completions per layer and step are the same.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measuring import last_line, quiet, run_measured, spread, text
from torch.profiler import ProfilerActivity, profile

from calibration.zoo.pretraining import Member, make_model, make_tokenizer
from probes.peak_memory import PeakMemory
from probes.policy import Policy, load_policy
from probes.tasks import Task, load_task
from probes.training import Trainer, TrainingConfig
from probes.training.joint import JointTrainer
from probes.training.memory import joint_bytes

SUMS = Path(__file__).parents[1] / "data" / "sums.jsonl"
MODES = ("base", "own")
TINY = TrainingConfig(steps=4, prompts_per_step=16, max_new_tokens=6, learning_rate=1e-3)
LARGE = TrainingConfig(steps=4, prompts_per_step=8, max_new_tokens=16, learning_rate=3e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny policy alone")
    parser.add_argument("--only", default="tiny,model,profile,lean")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--layers-alone", type=int, default=4, help="how many layers of MODEL are measured alone")
    parser.add_argument("--lean-child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet()
    if arguments.lean_child:
        lean_child(arguments.model, arguments.device, arguments.lean_child)
        return
    parts = ["tiny"] if arguments.quick else arguments.only.split(",")
    figures = {}
    if "tiny" in parts:
        figures["tiny"] = tiny(repeats=3 if arguments.quick else 7)
    if {"model", "profile"} & set(parts):
        policy, task = load_policy(arguments.model, device=arguments.device), load_task("addition")
        if "profile" in parts:
            figures["profile"] = profiled(policy, task)
        if "model" in parts:
            figures["model"] = on_model(arguments.model, policy, task, arguments.layers_alone)
        del policy
    if "lean" in parts:
        figures["lean"] = lean(arguments.model, arguments.device)
    last_line("warmup", **figures)


def alone(policy: Policy, task: Task, config: TrainingConfig, layers: list[int]) -> float:
    """Seconds for all steps of each of `layers`, one after another."""
    start = time.perf_counter()
    for k in layers:
        with Trainer(policy, task, config, layers=[k]) as trainer:
            trainer.run()
    _finish(policy)
    return time.perf_counter() - start


def together(policy: Policy, task: Task, config: TrainingConfig, layers: list[int]) -> float:
    """Seconds for all steps of all `layers` at once."""
    start = time.perf_counter()
    with JointTrainer(policy, task, config, [(k, config.learning_rate) for k in layers]) as trainer:
        for _ in range(config.steps):
            trainer.step()
    _finish(policy)
    return time.perf_counter() - start


def tiny(repeats: int) -> dict:
    """Ratios on an untrained 8-layer policy, rewarded for digits; alone and together in turn."""
    tokenizer = make_tokenizer()
    policy = Policy.from_objects(make_model(Member("llama", 8), tokenizer).eval(), tokenizer, "llama-8x64")
    task = replace(load_task(data=str(SUMS), reward="exact"), reward=digits, max_reward=None)
    layers, figures = list(range(8)), {}
    print(
        f"8-layer policy, {TINY.steps} steps of {TINY.prompts_per_step} x {TINY.group_size} completions, n = {repeats}"
    )
    print(f"{'completions':12} {'alone s':>22} {'together s':>22} {'together over alone':>22}")
    for mode in MODES:
        config = _of_mode(TINY, mode)
        together(policy, task, config, layers)  # warms up caches
        pairs = [(alone(policy, task, config, layers), together(policy, task, config, layers)) for _ in range(repeats)]
        one, all_ = zip(*pairs, strict=True)
        ratios = [b / a for a, b in pairs]
        print(f"{mode:12} {text(one):>22} {text(all_):>22} {text(ratios):>22}", flush=True)
        figures[mode] = {"n": repeats, "alone": spread(one), "together": spread(all_), "ratio": spread(ratios)}
    return figures


def digits(completions, **kwargs) -> list[float]:
    return [sum(c.isdigit() for c in completion) / max(1, len(completion)) for completion in completions]


def on_model(name: str, policy: Policy, task: Task, n_alone: int) -> dict:
    """The ratio on a whole model; alone is measured on layers in the middle of equal parts of the stack."""
    n = policy.n_layers
    chosen = [int((i + 0.5) * n / n_alone) for i in range(n_alone)]
    size = f"{LARGE.steps} steps of {LARGE.prompts_per_step} x {LARGE.group_size} completions"
    print(f"\n{name} on {policy.device}, {policy.dtype}, {size}; alone: layers {chosen}, scaled to {n}", flush=True)
    print(f"{'completions':12} {'alone s a layer':>26} {'together s a layer':>20} {'together over alone':>30}")
    figures = {"device": str(policy.device), "alone_layers": chosen}
    for mode in MODES:
        config = _of_mode(LARGE, mode)
        one = [alone(policy, task, config, [k]) for k in chosen]
        each = together(policy, task, config, list(range(n))) / n
        ratio = each / float(np.mean(one))
        by_layer = [each / seconds for seconds in one]
        told = f"{ratio:.2f} ({min(by_layer):.2f} to {max(by_layer):.2f} by layer)"
        print(f"{mode:12} {text(one):>26} {each:20.2f} {told:>30}", flush=True)
        figures[mode] = {"alone_a_layer": spread(one), "together_a_layer": each, "ratio": ratio}
    return figures


def profiled(policy: Policy, task: Task) -> dict:
    """Seconds a layer in training of the third step by kind of work, alone and together, on every third layer."""
    layers = list(range(0, policy.n_layers, 3))
    figures, columns = {}, {}
    for mode in MODES:
        config = _of_mode(LARGE, mode)
        with Trainer(policy, task, config, layers=[policy.n_layers // 2]) as trainer:
            trainer.step(), trainer.step()
            columns[f"alone, {mode}"] = _kinds(trainer.step, 1, policy)
        with JointTrainer(policy, task, config, [(k, config.learning_rate) for k in layers]) as trainer:
            trainer.step(), trainer.step()
            columns[f"together, {mode}"] = _kinds(trainer.step, len(layers), policy)
    print(f"\nseconds a layer in training of one step (layers {layers[0]} to {layers[-1]} by 3 together)")
    kinds = list(dict.fromkeys(kind for column in columns.values() for kind in column))
    print(f"{'kind of work':24}" + "".join(f"{name:>18}" for name in columns))
    for kind in kinds:
        print(f"{kind:24}" + "".join(f"{column.get(kind, 0.0):18.2f}" for column in columns.values()))
    print(f"{'all':24}" + "".join(f"{sum(column.values()):18.2f}" for column in columns.values()), flush=True)
    figures["seconds_a_layer"] = columns
    return figures


KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "gemm"),
    "attention": ("attention", "softmax"),
    "random numbers": ("uniform_", "exponential_", "log_", "neg_"),
    "copies and masks": ("copy_", "cat", "index", "fill_", "zero_", "gather", "masked_fill", "select"),
}


def _kinds(run, n: int, policy: Policy) -> dict[str, float]:
    activity = ProfilerActivity.CUDA if policy.device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as measured:
        run()
    found: dict[str, float] = {}
    for event in measured.key_averages():
        name = event.key.removeprefix("aten::").lower()
        own = event.self_device_time_total if policy.device.type == "cuda" else event.self_cpu_time_total
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "everything else")
        found[kind] = found.get(kind, 0.0) + own / 1e6 / n
    return found


def lean(name: str, device: str) -> dict:
    """Peak memory of warming up all layers of a model in a process of its own."""
    print(f"\n{'completions':12} {'peak MiB':>9} {'forecast MiB':>13} {'policy MiB':>11} {'peak over forecast':>19}")
    figures = {}
    for mode in MODES:
        command = [sys.executable, __file__, "--model", name, "--device", device, "--lean-child", mode]
        found = json.loads(run_measured(command).stdout.splitlines()[-1])
        ratio = found["peak"] / found["forecast"]
        values = [found[key] / 2**20 for key in ("peak", "forecast", "policy")]
        print(f"{mode:12} {values[0]:9.0f} {values[1]:13.0f} {values[2]:11.0f} {ratio:19.2f}", flush=True)
        figures[mode] = found | {"ratio": ratio}
    return figures


def lean_child(name: str, device: str, mode: str) -> None:
    policy, task = load_policy(name, device=device), load_task("addition")
    peak = PeakMemory(policy.device)
    config = _of_mode(replace(LARGE, steps=2), mode)
    together(policy, task, config, list(range(policy.n_layers)))
    layers = list(range(policy.n_layers))
    print(
        json.dumps({"peak": peak.bytes(), "forecast": joint_bytes(policy, layers), "policy": joint_bytes(policy, [])})
    )


def _of_mode(config: TrainingConfig, mode: str) -> TrainingConfig:
    return replace(config, base_steps=config.steps if mode == "base" else 0)


def _finish(policy: Policy) -> None:
    if policy.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
