"""An estimate as aligned text for the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advisor.estimate import CHECKED, ArmEstimate, Estimate, in_units
from advisor.forecast import clock

_LABEL, _COLUMN = 26, 13  # widths


def print_estimate(found: Estimate, console: Console) -> None:
    """Quantities as rows, ways to train as columns, in as many blocks as the width needs; then what it means."""
    shape = found.shape
    saving = ", gradient checkpointing" if shape.gradient_checkpointing else ""
    console.print(
        f"[bold]{escape(found.model)}[/bold]: {found.parameters / 1e6:.1f} M parameters, {found.n_layers} layers, "
        f"{found.dtype}, {found.optimizer}{saving}\n"
        f"One step: {shape.prompts} prompts × {shape.group_size} completions, {shape.prompt_tokens} + "
        f"{shape.max_new_tokens} tokens, {shape.pass_rows} completions a pass\n",
        highlight=False,
    )
    per_block = max(1, (console.width - _LABEL) // _COLUMN)
    arms = found.arms
    for start in range(0, len(arms), per_block):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        block = arms[start : start + per_block]
        for arm in block:
            table.add_column(arm.name.replace("LoRA on layer", "LoRA on"), justify="right", no_wrap=True)
        for label, cells in _rows(found, block):
            table.add_row(label, *cells)
        console.print(table)
        console.print()
    console.print(found.sentence, highlight=False)
    console.print(_origin(found), style="dim", highlight=False)


def _rows(found: Estimate, arms: list[ArmEstimate]) -> list[tuple[str, list[str]]]:
    def row(label: str, value) -> tuple[str, list[str]]:
        return label, [value(arm) for arm in arms]

    rows = [
        row("trainable parameters", lambda a: f"{a.trainable / 1e6:.4g} M"),
        row("share", lambda a: f"{a.share:.2%}"),
        row("weights", lambda a: in_units(found.weights)),
        row("gradients", lambda a: in_units(a.gradients)),
        row("optimizer", lambda a: in_units(a.optimizer)),
        row("activations of a pass", lambda a: in_units(a.activations)),
        row("cache while generating", lambda a: in_units(found.cache)),
        row("peak memory", lambda a: in_units(a.peak)),
        row("backward FLOPs of full's", lambda a: f"{found.backward_of_full(a):.0%}"),
    ]
    if found.full.seconds is None:
        return rows
    for part in ("generation", "forward", "backward", "optimizer", "step"):
        rows.append(row(f"{part} s", lambda a, part=part: f"{getattr(a.seconds, part):.3g}"))
    rows.append(row("backward, of the step", lambda a: f"{a.backward_share:.0%}"))
    rows.append(row("faster than full", lambda a: f"{found.faster(a):.2f} ×"))
    if found.steps:
        rows.append(row(f"{found.steps} steps", lambda a: clock(a.seconds.step * found.steps)))
    return rows


def _origin(found: Estimate) -> str:
    """Where the figures are from, and how far they were off where that was checked."""
    peak, step, held = (CHECKED[name] for name in ("peak", "step", "resident"))
    told = (
        f"Memory in use is counted on the model's shapes (against real steps of three policies {peak['median']:.0%} "
        f"too low, at worst {peak['worst']:.0%}); a CPU process holds up to {1 / (1 - held['worst']):.1f} "
        "times as much, beside its libraries."
    )
    if found.timed == "not":
        return f"{told} Nothing was timed."
    if found.timed == "roofline":
        m = found.machine
        return f"{told} Seconds follow from {m.flops / 1e12:g} TFLOP/s and {m.bandwidth / 1e9:g} GB/s; not checked."
    return (
        f"{told} Seconds were measured on {found.device}, on a few layers with random weights (off by "
        f"{step['median']:.0%} a step, at worst {step['worst']:.0%})."
    )
