"""`advisor estimate`"""

import click

from advisor.cli.completion import folders, models, one_of
from advisor.cli.options import model_options, print_json
from advisor.cli.training_options import parse_layers
from probes.errors import UsageError


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
@one_of("--optimizer", "adamw", "sgd", default="adamw", help="adamw with float32 state, or plain sgd.")
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

    from advisor.reports.estimate import print_estimate

    print_estimate(found, Console())


def _recommended(source: str, layers: list[int] | None) -> tuple[str, list[int], dict]:
    """Model, layers and protocol of a recommendation."""
    from advisor.recommendation import Recommendation

    rec = Recommendation.load(source)
    chosen = layers or rec.pick or [k for k in [(rec.fallback or {}).get("layer")] if k is not None]
    return rec.model["name"], chosen or None, rec.protocol
