"""The static effort on a 7B-shaped checkpoint, and how well sampled blocks stand for whole matrices.

    python tests/benchmarks/static_scan.py [--quick] [--model NAME]

Writes a synthetic checkpoint of Llama-7B shape (32 layers, bfloat16, 13 GB, in the temporary folder, deleted
afterwards; --quick: 8 layers of a 0.5B shape) and runs `advisor recommend --effort static` on it as a whole process.
Agreement: the columns of a real model from whole matrices against blocks whose shorter side is half or a quarter.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import last_line, run_measured
from safetensors.torch import save_file
from scipy.stats import spearmanr
from transformers import LlamaConfig

from probes.checkpoint import open_weights
from probes.policy import find_files
from probes.progress import Progress
from probes.weights import as_matrices, spectrum_of

TINY = Path(__file__).parents[1] / "data" / "tiny-policy"
_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
_SMALL = {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 16}


def write_checkpoint(folder: Path, shape: dict) -> int:
    """Random weights, one file a layer; returns the bytes written."""
    config = LlamaConfig(**shape, num_key_value_heads=shape["num_attention_heads"], architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    h, m = shape["hidden_size"], shape["intermediate_size"]
    torch.manual_seed(0)
    shapes = {f"self_attn.{n}_proj.weight": (h, h) for n in "qkvo"}
    shapes |= {"mlp.gate_proj.weight": (m, h), "mlp.up_proj.weight": (m, h), "mlp.down_proj.weight": (h, m)}
    base = {}
    for name, size in shapes.items():
        base[name] = torch.randn(size, dtype=torch.float32).mul_(0.02)
        base[name] += torch.outer(torch.randn(size[0]), torch.randn(size[1])) * 0.01  # structure that is not random
        base[name] = base[name].bfloat16()
    where, total = {}, 0
    for k in range(shape["num_hidden_layers"]):
        tensors = {f"model.layers.{k}.{n}": t.roll(k, 0).contiguous() for n, t in base.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{k}.{norm}.weight"] = torch.ones(h, dtype=torch.bfloat16)
        file = f"model-{k:05}.safetensors"
        save_file(tensors, folder / file)
        where |= dict.fromkeys(tensors, file)
        total += sum(t.numel() * 2 for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return total


def agreement(model: str) -> dict[str, dict[str, float]]:
    """Spearman correlation over layers between whole matrices and blocks, by column and share of the shorter side."""
    weights = open_weights(find_files(model, Progress()))
    columns = {}
    for k in range(weights.n_layers):
        matrices = [m.float() for t in weights.read(k).values() for m in as_matrices(t)]
        for share in (1, 2, 4):
            found = [spectrum_of(m, max(16, min(m.shape) // share)) for m in matrices]
            for name in ("snr", "tail_exponent", "excess"):
                columns.setdefault((name, share), []).append(np.median([getattr(s, name) for s in found]))
    return {
        name: {f"1/{share}": float(spearmanr(columns[name, 1], columns[name, share]).statistic) for share in (2, 4)}
        for name in ("snr", "tail_exponent", "excess")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "synthetic"
        model.mkdir()
        size = write_checkpoint(model, _SMALL if arguments.quick else _7B)
        command = [sys.executable, "-m", "advisor.cli", "recommend", str(model), "--effort", "static", "--json"]
        run = run_measured([*command, "--output-dir", f"{folder}/run"])
    n_layers = json.loads(run.stdout)["model"]["n_layers"]
    print(
        f"synthetic checkpoint, {n_layers} layers, {size / 2**30:.1f} GiB: {run.seconds:.0f} s, "
        f"peak memory {run.peak_bytes / 2**20:.0f} MiB (n = 1)"
    )
    name = str(TINY) if arguments.quick else arguments.model
    found = agreement(name)
    print(f"\n{Path(name).name}: Spearman over layers, whole matrices against blocks of a share of the shorter side")
    for column, values in found.items():
        print(f"{column:16} " + "   ".join(f"{share} {value:.2f}" for share, value in values.items()))
    last_line(
        "static_scan",
        n=1,
        bytes=size,
        layers=n_layers,
        seconds=run.seconds,
        peak_mib=run.peak_bytes / 2**20,
        agreement={"model": Path(name).name, "spearman": found},
    )


if __name__ == "__main__":
    main()
