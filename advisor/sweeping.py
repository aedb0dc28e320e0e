"""The whole profile: every layer trained, every seed, every rate."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from advisor.contributions import Contributions
from advisor.decision import judge_sweep
from advisor.measuring import Arms, OutputDir, measure_arms
from advisor.measuring_options import MeasuringOptions
from probes.progress import Progress
from probes.tasks import Task


def sweep(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | str | None = None,
    *,
    layers: Sequence[int] | None = None,
    options: MeasuringOptions | None = None,
    output_dir: OutputDir = None,
    progress: Progress | None = None,
) -> Contributions:
    """Measured contribution of each of `layers` (None: every one), with the agreement between seeds.

    As `advisor.verify`, with every layer an arm of its own. Cost: (layers + 1) x seeds x rates training runs where the
    protocol's ``rate_by`` is "every_seed".
    """
    options = options or MeasuringOptions()
    arms_of, asked = arms_to_sweep(layers, options)
    return measure_arms("sweep", model, tokenizer, task, arms_of, judge_sweep, options, output_dir, progress, asked)


def arms_to_sweep(
    layers: Sequence[int] | None, options: MeasuringOptions
) -> tuple[Callable[[int], Arms], dict[str, Any]]:
    """The arms of a sweep in a stack of so many layers, and what tells it from others."""

    def arms_of(n_layers: int) -> Arms:
        chosen = range(n_layers) if layers is None else layers
        return [("layer", (k,)) for k in chosen] + ([("full", None)] if options.reference == "full" else [])

    return arms_of, {"layers": layers and list(layers)}
