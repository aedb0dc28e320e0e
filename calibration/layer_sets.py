"""Does what single layers bring predict what a set of them brings? Asked of the sets in the corpus.

python -m calibration.layer_sets
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from calibration.agreement import spearman
from calibration.corpus.records import Pair, load_corpus
from calibration.examples import SURE_SHARE
from calibration.runs import FULL, arm_name
from calibration.sweep import Sweep
from probes.registry import DECODINGS


@dataclass(frozen=True)
class LayerSet:
    """A measured set: its contribution, those of its layers alone, and whether it is the best of its size."""

    pair: str
    member: str
    layers: tuple[int, ...]
    contribution: float
    singles: tuple[float, ...]
    is_top: bool

    @property
    def best_single(self) -> float:
        return max(self.singles)

    @property
    def sum_of_singles(self) -> float:
        return sum(self.singles)


def measured_sets(pair: Pair, decoding: str) -> list[LayerSet]:
    """The sets of a pair; none where its full-parameter gain is not well known."""
    sets = sorted({tuple(run["layers"]) for run in pair.layer_set_runs})
    if not sets:
        return []
    singles = [(k,) for k in range(pair.n_layers)]
    plain = pair.sweep(decoding)
    scores = Sweep(plain.protocol, [*singles, *sets, None], plain.base, plain.records).scores(decoding)
    gain = scores.gain(FULL)
    if gain.low < SURE_SHARE * gain.value:
        return []
    c = {layers: scores.gain(arm_name(layers)).value / gain.value for layers in [*singles, *sets]}
    order = sorted(range(pair.n_layers), key=lambda k: -c[k,])
    return [
        LayerSet(pair.name, pair.member, s, c[s], tuple(c[k,] for k in s), set(s) == set(order[: len(s)])) for s in sets
    ]


def summary(pairs: Sequence[Pair], decoding: str) -> dict[str, Any]:
    """How sets compare with their layers: errors of "best single" and "sum", and what more layers add at the top."""
    found = [s for pair in pairs for s in measured_sets(pair, decoding)]
    if not found:
        return {"sets": 0}
    names = ("contribution", "best_single", "sum_of_singles")
    c, best, total = (np.array([getattr(s, name) for s in found]) for name in names)
    by_size: dict[int, list[tuple[float, float]]] = {}
    for s in found:
        if s.is_top:
            by_size.setdefault(len(s.layers), []).append((s.contribution, s.best_single))
    return {
        "sets": len(found),
        "pairs": len({s.pair for s in found}),
        "policies": len({s.member for s in found}),
        "mean_error_of_best_single": float(np.mean(np.abs(c - best))),
        "mean_error_of_sum": float(np.mean(np.abs(c - total))),
        "mean_error_of_sum_at_most_1": float(np.mean(np.abs(c - np.minimum(total, 1.0)))),
        "set_less_best_single": _spread(c - best),
        "spearman_best_single": spearman(best, c),
        "spearman_sum": spearman(total, c),
        "top_sets": {
            size: {"set": _spread([v for v, _ in values]), "best_single": _spread([b for _, b in values])}
            for size, values in sorted(by_size.items())
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    values = np.array(values, dtype=float)
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "standard_error": error, "n": len(values)}


@click.command()
def main() -> None:
    """Print what the sets of the corpus say."""
    pairs = [pair for pair in load_corpus() if pair.is_whole]
    for decoding in DECODINGS:
        s = summary(pairs, decoding)
        if not s["sets"]:
            click.echo(f"{decoding}: no sets with a known gain")
            continue
        click.echo(f"\n{decoding}: {s['sets']} sets of {s['pairs']} sweeps, {s['policies']} policies")
        click.echo(
            f"mean error in C of the best single layer's {s['mean_error_of_best_single']:.2f}, of the sum "
            f"{s['mean_error_of_sum']:.2f}, of the sum but at most 1 {s['mean_error_of_sum_at_most_1']:.2f}; Spearman "
            f"{s['spearman_best_single']:.2f} and {s['spearman_sum']:.2f}"
        )
        more = s["set_less_best_single"]
        click.echo(f"a set brings {more['mean']:+.2f} ± {more['standard_error']:.2f} C more than its best layer alone")
        for size, top in s["top_sets"].items():
            a, b = top["set"], top["best_single"]
            click.echo(
                f"best {size} layers: C {a['mean']:.2f} ± {a['standard_error']:.2f}, the best alone {b['mean']:.2f} ± "
                f"{b['standard_error']:.2f} (n = {a['n']})"
            )


if __name__ == "__main__":
    main()
