"""`advisor.estimate` against real steps: what it says without the weights, beside what a step then takes.

    python tests/benchmarks/estimate.py [--quick] [--repeats N] [--only NAME,...]

Three policies of different families are made from their configurations with random weights. Estimates and real steps
take turns, each in a fresh process: a real one samples completions of forced length, runs forward and backward on
passes of one row a completion, and steps the optimiser (LoRA by PEFT). Seconds are of the second step. Shown are
median and range over processes; compared are the fastest of each side, since other work on a machine only ever adds.

resident  the peak of that process above what it held before the model was made
peak      the same in a process whose C library gives freed memory back at once (glibc's MALLOC_MMAP_THRESHOLD_), so
          that only what is in use counts, as on a GPU; slower, so its seconds are not looked at. n = 1, it repeats well
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict

import numpy as np
import torch
from measuring import last_line, quiet, run_measured

from advisor.estimate import estimate
from advisor.freezing import Frozen, lora_config
from probes.cost import StepShape
from probes.cost.bench import Stub
from probes.layout import unshared_layout
from probes.noise import Noise
from probes.peak_memory import PeakMemory, release_free_memory
from probes.policy import DTYPES
from probes.rollouts import Group
from probes.sampling import sample_completions
from probes.stack import find_stack
from probes.training.config import TrainingConfig
from probes.training.optimizer import MasterAdamW

_GPT2 = {"n_embd": 320, "n_layer": 10, "n_head": 5, "n_positions": 512, "vocab_size": 8192}
_QWEN3 = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10, "num_attention_heads": 8}
_LLAMA = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
_SMALL_HEADS = {"head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True}
POLICIES = {  # name: (configuration, type of the weights)
    "gpt2-15m": ("GPT2Config", _GPT2, "float32"),
    "qwen3-57m": ("Qwen3Config", {**_QWEN3, "num_key_value_heads": 4, **_SMALL_HEADS}, "float32"),
    "llama-135m": ("LlamaConfig", {**_LLAMA, "num_key_value_heads": 3, **_SMALL_HEADS}, "bfloat16"),
}
SHAPE = StepShape(prompts=2, group_size=8, prompt_tokens=48, max_new_tokens=32, rows_per_pass=8)
SECONDS = ("generation", "forward", "backward", "optimizer", "step")
QUANTITIES = (*SECONDS, "resident", "peak")
RANK = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest policy, one repeat")
    parser.add_argument("--repeats", type=int, default=3, help="estimates, and processes of real steps for each arm")
    parser.add_argument("--only", default=",".join(POLICIES))
    parser.add_argument("--child", nargs=2, metavar=("POLICY", "ARM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet()
    if arguments.child:
        child(*arguments.child)
        return
    names = ["gpt2-15m"] if arguments.quick else arguments.only.split(",")
    repeats = 1 if arguments.quick else arguments.repeats
    print(
        f"One step: {SHAPE.prompts} prompts x {SHAPE.group_size} completions, {SHAPE.prompt_tokens} + "
        f"{SHAPE.max_new_tokens} tokens, {SHAPE.pass_rows} completions a pass, AdamW; seconds and MiB; n = {repeats}"
    )
    figures, errors = {}, defaultdict(list)
    for name in names:
        figures[name] = compare(name, repeats, errors)
    summary = {
        quantity: {"median": float(np.median(np.abs(found))), "worst": float(np.abs(found).max()), "n": len(found)}
        for quantity, found in errors.items()
    }
    print("\nabsolute relative error over policies and arms")
    for quantity, found in summary.items():
        print(f"{quantity:12} median {found['median']:6.1%}   worst {found['worst']:6.1%}   n = {found['n']}")
    last_line("estimate", shape=vars(SHAPE), rank=RANK, repeats=repeats, policies=figures, error=summary)


def compare(name: str, repeats: int, errors: dict[str, list[float]]) -> dict:
    """Estimates and real steps of one policy in turn."""
    said, seen = defaultdict(list), defaultdict(list)
    for _ in range(repeats):
        for arm, told in run_child(name, "estimate").items():
            said[arm].append(told)
        for arm in ("full", "layer", "lora"):
            seen[arm].append(run_child(name, arm))
    lean = {arm: run_child(name, arm, MALLOC_MMAP_THRESHOLD_="65536")["resident"] for arm in seen}
    sizes = said["full"][0]["trainable"]
    print(f"\n{name}: {sizes / 1e6:.1f} M parameters, {POLICIES[name][2]}")
    print(f"{'trained':8} {'quantity':12} {'estimate':>26} {'real':>26} {'fastest of each':>16}")
    figures = {}
    for arm, real in seen.items():
        for told in real:
            if told["trainable"] != said[arm][0]["trainable"]:
                sys.exit(f"{name}, {arm}: {said[arm][0]['trainable']} parameters said, {told['trainable']} trained")
        for quantity in QUANTITIES:
            key = "peak" if quantity == "resident" else quantity
            a = [told[key] for told in said[arm]]
            b = [lean[arm]] if quantity == "peak" else [told[quantity] for told in real]
            ratio = min(a) / min(b)
            if quantity != "optimizer" or min(b) > 0.01:  # a clock's noise is no error worth counting
                errors[quantity].append(ratio - 1)
            print(f"{arm:8} {quantity:12} {_text(a):>26} {_text(b):>26} {ratio:16.2f}", flush=True)
            figures[f"{arm}, {quantity}"] = {"estimate": a, "real": b, "ratio": ratio}
    return figures


def run_child(name: str, arm: str, **environment: str) -> dict:
    command = [sys.executable, __file__, "--child", name, arm]
    return json.loads(run_measured(command, env={**os.environ, **environment}).stdout.splitlines()[-1])


def child(name: str, arm: str) -> None:
    """Print what was estimated of all arms, or what the steps of one took."""
    import transformers

    kind, fields, dtype = POLICIES[name]
    config = getattr(transformers, kind)(**fields)
    middle = config.get_text_config().num_hidden_layers // 2
    if arm == "estimate":
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        found = estimate(model, layers=[middle], shape=SHAPE, dtype=dtype, rank=RANK, device="cpu")
        told = {
            key: vars(a.seconds) | {"step": a.seconds.step, "peak": a.peak / 2**20, "trainable": a.trainable}
            for key, a in zip(("full", "layer", "lora"), found.arms, strict=True)
        }
    else:
        tiny = transformers.LlamaConfig(
            vocab_size=128, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        )
        steps(tiny, 0, arm, "float32", 2)  # loads what torch and PEFT load when first used
        told = steps(config, middle, arm, dtype, 2)
    print(json.dumps(told))


def steps(config, layer: int, arm: str, dtype: str, n: int) -> dict:
    """Run `n` real steps; seconds of those after the first, and the peak."""
    import transformers

    release_free_memory()
    peak, floor = PeakMemory(torch.device("cpu")), _resident()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype]).eval()
    if arm == "lora":
        import peft

        model = peft.get_peft_model(model, lora_config(model, [layer], r=RANK)).get_base_model()
    elif arm == "layer":
        Frozen(model, [layer])
    trained = [p for p in model.parameters() if p.requires_grad]
    policy = Stub("real", model, None, find_stack(model))
    optimizer, rng = MasterAdamW(trained, TrainingConfig()), np.random.default_rng(0)
    rows = []
    for step in range(n):
        start = time.perf_counter()
        prompts = rng.integers(2, config.vocab_size, (SHAPE.prompts, SHAPE.prompt_tokens)).tolist()
        completions = sample_completions(
            policy,
            prompts,
            SHAPE.group_size,
            max_new_tokens=SHAPE.max_new_tokens,
            temperature=1.0,
            noise=Noise(policy.device, 0, step),
        )
        stamps, forward, backward = [time.perf_counter() - start], 0.0, 0.0
        for first in range(0, SHAPE.rows, SHAPE.pass_rows):
            part = completions[first : first + SHAPE.pass_rows]
            weights = rng.normal(size=len(part))
            group = Group({}, prompts[first // SHAPE.group_size], part, [], weights)
            begun = time.perf_counter()
            batch = unshared_layout(policy, [group], [weights], 1.0)
            loss = -batch.objective(policy.model(**batch.inputs).logits)
            middle = time.perf_counter()
            loss.backward()
            forward, backward = forward + middle - begun, backward + time.perf_counter() - middle
            del loss
        begun = time.perf_counter()
        optimizer.step(1e-6)
        stamps += [forward, backward, time.perf_counter() - begun, time.perf_counter() - start]
        rows.append(stamps)
    optimizer.close()
    told = dict(zip(SECONDS, np.median(rows[1:], 0).tolist(), strict=True))
    return told | {"resident": (peak.bytes() - floor) / 2**20, "trainable": sum(p.numel() for p in trained)}


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * 4096


def _text(values) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
