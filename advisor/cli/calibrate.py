"""`advisor calibrate`"""

import click

from advisor.cli.completion import folders
from advisor.cli.options import model_options, print_json
from advisor.cli.settings import hint


@click.command(name="calibrate")
@click.argument("sweeps", nargs=-1, metavar="[SWEEP]...", shell_complete=folders)
@click.option(
    "--output-dir", default="advisor-predictor", show_default=True, metavar="DIR", help="Where predictors go."
)
@click.option("--corpus/--no-corpus", "with_corpus", default=True, help="Fit on the shipped sweeps too [default: yes].")
@model_options
def command(sweeps: tuple[str, ...], output_dir: str, as_json: bool, **arguments) -> None:
    """Fit predictors on your own sweeps beside the shipped ones.

    SWEEP are output folders of `advisor sweep`. Then: advisor recommend MODEL --predictor DIR.
    """
    from advisor.cli.progress import shown_progress

    with shown_progress({"start": 4.0}) as progress:
        from advisor.calibrating import calibrate

        found = calibrate(sweeps, output_dir, progress=progress, **arguments)
    told = [{**fitted.predictor.facts, "errors": fitted.errors} for fitted in found]
    if as_json:
        from advisor.store import SCHEMA_VERSION

        print_json({"schema_version": SCHEMA_VERSION, "output_dir": output_dir, "predictors": told})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("effort", "left"), ("decoding", "left"), ("fitted", "left"), ("sweeps", "right")):
        table.add_column(name, justify=justify, no_wrap=True)
    for name in ("policies", "families", "error", "of depth alone"):
        table.add_column(name, justify="right")
    for one in told:
        errors = [one["errors"][name] ** 0.5 for name in (one["candidate"], "depth curve")]
        counts = (one["sweeps"], one["policies"], len(one["families"]))
        table.add_row(
            one["effort"], one["decoding"], one["candidate"], *map(str, counts), *(f"{e:.3f}" for e in errors)
        )
    console = Console()
    console.print(table)
    console.print(
        "error: root mean square of the advantage in C over the policy's mean layer, families left out.",
        style="dim",
        highlight=False,
    )
    hint(f"Predictors: {output_dir} (advisor recommend MODEL --predictor {output_dir})")
