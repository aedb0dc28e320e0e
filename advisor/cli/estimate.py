"""`advisor estimate`"""

from typing import TYPE_CHECKING

import click

from advisor.cli.completion import folders, models, words
from advisor.cli.options import model_options, print_json
from advisor.cli.training_options import parse_layers
from probes.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from advisor.estimate import ArmEstimate, Estimate

_LABEL, _COLUMN = 26, 13  # widths


@click.command(name="estimate")
@click.argument("model", required=False, shell_complete=models)
@click.option(
    "--from",
    "source",
    metavar="DIR",
    shell_complete=folders,
    help="The folder of a recommendation: its model, pick, group size and completion length.",
)
@click.option("--layers", metavar="K[,K]", help="Layers to train, each alone [default: the middle and the last].")
@click.option("--prompts", default=16, show_default=True, help="Prompts of a step.")
@click.option("--group-size", type=int, help="Completions of one prompt [default: 8].")
@click.option("--prompt-tokens", default=64, show_default=True, help="Tokens of a prompt.")
@click.option("--max-new-tokens", type=int, help="Tokens of every completion [default: 32].")
@click.option(
    "--rows-per-pass",
    type=int,
    metavar="N",
    help="Completions that go through backward at once [default: groups of 512 completion tokens].",
)
@click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=False, help="Keep only layers' inputs.")
@click.option(
    "--optimizer",
    default="adamw",
    show_default=True,
    metavar="adamw|sgd",
    shell_complete=words("adamw", "sgd"),
    help="adamw with float32 state, or plain sgd.",
)
@click.option("--rank", default=16, show_default=True, help="Rank of LoRA on the first of the layers.")
@click.option("--lora/--no-lora", default=True, help="Show LoRA too [default: yes].")
@click.option("--steps", type=int, help="Steps of the whole run: adds its time.")
@click.option("--tflops", type=float, metavar="X", help="Plan for a machine that achieves X TFLOP/s ...")
@click.option("--bandwidth", type=float, metavar="Y", help="... and Y GB/s from memory, instead of timing this one.")
@click.option("--time/--no-time", "timed", default=True, help="Time a few layers on this machine [default: yes].")
@model_options
def command(
    model: str | None,
    source: str | None,
    layers: str | None,
    group_size: int | None,
    max_new_tokens: int | None,
    tflops: float | None,
    bandwidth: float | None,
    as_json: bool,
    **arguments,
) -> None:
    """Say what training one layer of MODEL costs, beside all of it and LoRA: parameters, memory, seconds of a step.

    Only MODEL's configuration is read. Completions are taken to be as long as --max-new-tokens allows; each is trained
    on as a row of its own.
    """
    from advisor.cli.progress import shown_progress

    if (model is None) == (source is None):
        raise UsageError("Give MODEL, or --from with the folder of a recommendation, and not both.")
    if (tflops is None) != (bandwidth is None):
        raise UsageError("--tflops and --bandwidth describe a machine together: give both, or neither.")
    if tflops is not None and not (tflops > 0 and bandwidth > 0):
        raise UsageError(f"--tflops {tflops:g} and --bandwidth {bandwidth:g} must be above 0.")
    chosen = None if layers is None else parse_layers(layers, "--layers")
    with shown_progress({"count operations and bytes": 5.0, "time a few layers": 20.0}) as progress:
        from advisor.estimate import estimate
        from probes.cost import Machine, StepShape

        if source is not None:
            model, chosen, sampling = _recommended(source, chosen)
            group_size = sampling.get("group_size") if group_size is None else group_size
            max_new_tokens = sampling.get("max_new_tokens") if max_new_tokens is None else max_new_tokens
        shape = StepShape(
            prompts=arguments["prompts"],
            group_size=8 if group_size is None else group_size,
            prompt_tokens=arguments["prompt_tokens"],
            max_new_tokens=32 if max_new_tokens is None else max_new_tokens,
            rows_per_pass=arguments["rows_per_pass"],
            gradient_checkpointing=arguments["gradient_checkpointing"],
        )
        found = estimate(
            model,
            layers=chosen,
            shape=shape,
            dtype=arguments["dtype"],
            optimizer=arguments["optimizer"],
            rank=arguments["rank"] if arguments["lora"] else None,
            device=arguments["device"],
            machine=None if tflops is None else Machine(tflops * 1e12, bandwidth * 1e9),
            timed=arguments["timed"],
            steps=arguments["steps"],
            trust_remote_code=arguments["trust_remote_code"],
            progress=progress,
        )
    if as_json:
        print_json(found.as_dict())
        return
    from rich.console import Console

    print_estimate(found, Console())


def print_estimate(found: "Estimate", console: "Console") -> None:
    """Quantities as rows, ways to train as columns, in as many blocks as the width needs; then what it means."""
    from rich.markup import escape
    from rich.table import Table

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


def _rows(found: "Estimate", arms: "list[ArmEstimate]") -> list[tuple[str, list[str]]]:
    from advisor.estimate import in_units

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
        from advisor.forecast import clock

        rows.append(row(f"{found.steps} steps", lambda a: clock(a.seconds.step * found.steps)))
    return rows


def _origin(found: "Estimate") -> str:
    """Where the figures are from, and how far they were off where that was checked."""
    from advisor.estimate import CHECKED

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


def _recommended(source: str, layers: list[int] | None) -> tuple[str, list[int], dict]:
    """Model, layers and protocol of a recommendation."""
    from advisor.recommendation import Recommendation

    rec = Recommendation.load(source)
    chosen = layers or rec.pick or [k for k in [(rec.fallback or {}).get("layer")] if k is not None]
    return rec.model["name"], chosen or None, rec.protocol
