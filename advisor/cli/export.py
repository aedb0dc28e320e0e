"""`advisor export`"""

import click

from advisor.cli.completion import folders, words
from advisor.cli.options import print_json
from advisor.cli.settings import general_options, hint
from advisor.exports import TARGETS


@click.command(name="export")
@click.option(
    "--from", "source", required=True, metavar="DIR", shell_complete=folders, help="The folder of a recommendation."
)
@click.option(
    "--to",
    required=True,
    metavar="NAME",
    shell_complete=words(*TARGETS),
    help=f"The framework: {', '.join(TARGETS)}.",
)
@click.option("--lora", is_flag=True, help="LoRA also where the framework can train the layer's weights.")
@click.option("--rank", default=16, show_default=True, help="Rank of LoRA.")
@click.option("--data/--no-data", "with_data", default=True, help="Write prompts and reward too [default: yes].")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option(
    "--output-dir", metavar="DIR", shell_complete=folders, help="Where files go [default: exports/NAME there]."
)
@general_options
def command(source: str, to: str, output_dir: str | None, as_json: bool, **options) -> None:
    """Write the pick of a recommendation as configuration of a training framework.

    The layer's weights are trained where the framework can be told to, LoRA otherwise.
    """
    from advisor.exports import export
    from advisor.recommendation import Recommendation
    from probes.errors import unknown_name

    if to not in TARGETS:  # before anything is read
        raise unknown_name("framework", to, TARGETS, "Pass one of these as --to.")
    found = export(Recommendation.load(source), to, output_dir, **options)
    if as_json:
        print_json(found.as_dict())
        return
    click.echo(found.says)
    click.echo(f"Checked with {found.checked_with}.")
    for file in found.files:
        click.echo(f"  {file}")
    click.echo(f"Run: {found.run}")
    for note in found.notes:
        hint(f"Note: {note}")
