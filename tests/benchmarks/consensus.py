"""What uni-layer 0.7.0 (extra [bench]) says of the layers of the corpus's policies: kept in each pair's record.

    python -m calibration.zoo ZOO
    python tests/benchmarks/consensus.py ZOO [--corpus DIR]

Its Borda consensus over the preset "llm_full" as shipped, on 32 prompts of the task with their right answers, which is
the form of data that it takes. (Of the preset "llm_fast" only block influence and its complement give numbers on
decoder layers; they cancel, and every layer has the same consensus.) `calibration.evaluation` shows it beside others.
"""

import argparse
import contextlib
import io
import time
from dataclasses import replace
from pathlib import Path

import torch
from measuring import quiet

from calibration.corpus.records import SMALL_POLICIES, load_corpus, save_pair
from calibration.zoo.pretraining import load_member
from calibration.zoo.skills import rl_rows
from probes.policy import Policy
from probes.preserve import left_as_found

PRESET, ROWS = "llm_full", 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--corpus", type=Path, default=SMALL_POLICIES)
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    for pair in load_corpus([arguments.corpus]):
        if not pair.is_whole or (pair.others or {}).get("uni-layer"):
            continue
        policy = load_member(arguments.zoo / pair.member / pair.head["policy"]["skill"])
        start = time.perf_counter()
        scores = consensus(policy, pair.task)
        told = {
            "scores": scores,
            "seconds": round(time.perf_counter() - start, 3),
            "version": "0.7.0",
            "preset": PRESET,
        }
        save_pair(replace(pair, others={**(pair.others or {}), "uni-layer": told}), arguments.corpus)
        print(pair.name, scores, flush=True)


def consensus(policy: Policy, task: str) -> list[float]:
    """Borda consensus of every layer, larger is more important."""
    from uni_layer import LayerAnalyzer
    from uni_layer.core.profile import LayerProfile

    texts = [row["prompt"] + row["answer"] for row in rl_rows(task)[:ROWS]]
    ids = [torch.tensor([policy.tokenizer(text)["input_ids"]], device=policy.device) for text in texts]
    with left_as_found(policy.model), contextlib.redirect_stdout(io.StringIO()):
        policy.model.requires_grad_(True)
        analyzer = LayerAnalyzer(policy.model, task_type="generation", device=str(policy.device))
        names = [name for name in analyzer.layers if name.startswith(policy.stack.prefix)]
        assert len(names) == policy.n_layers
        rows = [(row, row) for row in ids]
        found = analyzer.compute_metrics(
            preset=PRESET, data_loader=rows, layer_names=names, verbose=False, num_batches=len(rows)
        )
    by_name = {entry["layer"]: entry["consensus_score"] for entry in LayerProfile(found).consensus_ranking}
    return [float(by_name[name]) for name in names]


if __name__ == "__main__":
    main()
