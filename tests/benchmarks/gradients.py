"""What all gradient-type numbers of all layers cost, against one plain forward and backward pass.

    python tests/benchmarks/gradients.py [--quick] [--model NAME] [--groups N] [--repeats N] [--threads N]

All variants work on the same rollouts and are timed in turn within each repeat, so that ratios hold on a machine whose
speed drifts. "repeated" lays out each completion with its own copy of the prompt, as trainers do; "shared" reads each
prompt once a group. Side by side, on fewer groups: uni-layer 0.7.0 and aletheia-lora 0.1.2 (extra [bench]), which give
one gradient norm a layer. Peak memory is that of a fresh process that samples and runs one variant. `--quick` uses the
tiny policy of the tests.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import last_line, run_measured, spread, text

from probes.gradients import fold_gradients
from probes.layout import GroupBatch
from probes.objective import lay_out
from probes.policy import Policy, load_policy
from probes.preserve import left_as_found
from probes.rollouts import Rollouts, SamplingConfig, collect_rollouts
from probes.tape import recorded
from probes.tasks import load_task

TINY = Path(__file__).parents[1] / "data"


def plain(policy: Policy, batches: list[GroupBatch]) -> None:
    """One ordinary forward and backward pass a group, gradients of all layers summed in .grad."""
    with left_as_found(policy.model):
        policy.model.requires_grad_(False)
        policy.stack.layers.requires_grad_(True)
        for batch in batches:
            batch.objective(policy.model(**batch.inputs).logits).backward()


def all_columns(policy: Policy, batches: list[GroupBatch]) -> None:
    """Every column of the gradients probe for every layer."""
    with left_as_found(policy.model), recorded(policy, batches) as tape:
        for k, gradients in tape.backward():
            fold_gradients(gradients, tape.parameters(k))


def uni_layer(policy: Policy, batches: list[GroupBatch]) -> None:
    """uni-layer's gradient norm of every layer; it takes token ids and labels."""
    import contextlib
    import io

    from uni_layer import GradientNorm, LayerAnalyzer

    rows = [(b.inputs["input_ids"], b.inputs["input_ids"]) for b in batches]
    with left_as_found(policy.model), contextlib.redirect_stdout(io.StringIO()):
        policy.model.requires_grad_(True)
        analyzer = LayerAnalyzer(policy.model, device=str(policy.device))
        names = [name for name in analyzer.layers if name.startswith(policy.stack.prefix)]
        assert len(names) == policy.n_layers
        analyzer.compute_metrics(
            [GradientNorm(num_batches=len(rows))], rows, names, verbose=False, num_batches=len(rows)
        )


def aletheia(policy: Policy, batches: list[GroupBatch]) -> None:
    """aletheia-lora's gradient probe: one row at a time, eight layers at a time."""
    from aletheia_lora import gradient_probe

    rows = [
        {"input_ids": ids, "attention_mask": mask}
        for b in batches
        for ids, mask in zip(b.inputs["input_ids"], b.inputs["attention_mask"], strict=True)
    ]
    with left_as_found(policy.model):
        gradient_probe(policy.model, rows, policy.n_layers, probe_batches=len(rows), device=policy.device)


VARIANTS = {  # name: (what runs, whether prompts are shared)
    "plain, prompts repeated": (plain, False),
    "plain, prompts shared": (plain, True),
    "all columns, prompts repeated": (all_columns, False),
    "all columns, prompts shared (used)": (all_columns, True),
}


def timed(run: Callable, policy: Policy, batches: list[GroupBatch]) -> float:
    start = time.perf_counter()
    run(policy, batches)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--others-groups", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # child process: run one variant
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.model, arguments.repeats = str(TINY / "tiny-policy"), 3
    # First, while this process is small: a child's peak starts at its parent's size.
    peaks = {} if arguments.peak_of else {name: peak(name, arguments) for name in VARIANTS}
    policy = load_policy(arguments.model, device="cpu")
    rollouts = sample(policy, arguments)
    shared, repeated = lay_out(policy, rollouts, shared=True), lay_out(policy, rollouts, shared=False)
    layouts = {True: shared, False: repeated}
    variants = {name: (run, layouts[is_shared]) for name, (run, is_shared) in VARIANTS.items()}
    if arguments.peak_of:
        run, batches = variants[arguments.peak_of]
        run(policy, batches)
        return
    for run, batches in variants.values():
        run(policy, batches[:4])  # warm up
    seconds = {name: [] for name in variants}
    for _ in range(arguments.repeats):
        for name, (run, batches) in variants.items():
            seconds[name].append(timed(run, policy, batches))
    few = repeated[: arguments.others_groups]
    others = {"plain": timed(plain, policy, few), "uni-layer 0.7.0": timed(uni_layer, policy, few)}
    others["aletheia-lora 0.1.2"] = timed(aletheia, policy, few)
    report(policy, arguments, len(shared), seconds, others, peaks)


def sample(policy: Policy, arguments: argparse.Namespace) -> Rollouts:
    """The same rollouts in every process: the groups with spread, up to the number asked for."""
    task = load_task(data=str(TINY / "sums.jsonl"), reward="exact") if arguments.quick else load_task("addition")
    config = SamplingConfig(groups=arguments.groups, max_new_tokens=4 if arguments.quick else 22)
    found = collect_rollouts(policy, task, config)
    return Rollouts(found.informative[: arguments.groups], found.max_new_tokens, found.temperature, found.eos_ids)


def peak(name: str, arguments: argparse.Namespace) -> int:
    """Peak resident bytes of a fresh process that loads, samples and runs one variant."""
    command = [sys.executable, __file__, "--peak-of", name, "--groups", str(arguments.groups)]
    command += ["--threads", str(arguments.threads)]
    command += ["--quick"] if arguments.quick else ["--model", arguments.model]
    return run_measured(command).peak_bytes


def report(
    policy: Policy, arguments: argparse.Namespace, n_groups: int, seconds: dict, others: dict, peaks: dict
) -> None:
    base = np.array(seconds["plain, prompts repeated"])
    same = {
        "all columns, prompts repeated": base,
        "all columns, prompts shared (used)": np.array(seconds["plain, prompts shared"]),
    }
    print(
        f"{Path(policy.name).name}, {policy.n_layers} layers, {policy.dtype}, {n_groups} groups of 8, "
        f"n = {arguments.repeats} repeats, {arguments.threads} threads; median (min to max)\n"
    )
    print(
        f"{'variant':36} {'seconds':>22} {'over plain, repeated':>22} {'over plain, same layout':>24} {'peak MiB':>9}"
    )
    ratios = {}
    for name, values in seconds.items():
        values = np.array(values)
        ratios[name] = {"over_plain": spread(values / base)}
        line = f"{name:36} {text(values):>22} {text(values / base):>22}"
        if name in same:
            ratios[name]["over_plain_same_layout"] = spread(values / same[name])
            line += f" {text(values / same[name]):>24}"
        print(line + " " * (110 - len(line)) + f"{peaks[name] / 2**20:6.0f}")
    print(f"\non {arguments.others_groups} groups, prompts repeated, once:")
    for name, value in others.items():
        print(f"{name:36} {value:10.1f} s {value / others['plain']:8.1f} times plain")
    layer = sum(p.numel() * p.element_size() for p in policy.stack.layers[0].parameters())
    elements = policy.stack.sizes()[0]
    held = 2 * 4 * elements + layer
    print(
        f"\ngradients held: plain {policy.n_layers} layers = {policy.n_layers * layer / 2**20:.1f} MiB; all columns "
        f"two float32 sums and one gradient of one layer = {held / 2**20:.1f} MiB"
    )
    last_line(
        "gradients",
        model=Path(policy.name).name,
        groups=n_groups,
        n=arguments.repeats,
        seed=0,
        threads=arguments.threads,
        seconds={name: spread(values) for name, values in seconds.items()},
        ratios=ratios,
        others={
            "groups": arguments.others_groups,
            "n": 1,
            "seconds": others,
            "over_plain": {name: value / others["plain"] for name, value in others.items()},
        },
        peak_bytes=peaks,
        gradient_bytes={"plain": policy.n_layers * layer, "all_columns": held},
    )


if __name__ == "__main__":
    main()
