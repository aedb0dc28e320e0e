"""Make the zoo: `python -m calibration.zoo DIR [--member NAME ...]`"""

from pathlib import Path

import click
import torch

from calibration.zoo.pretraining import pretrain
from calibration.zoo.roster import ROSTER

_NAMES = {member.name: member for member in ROSTER}


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--member", "names", multiple=True, type=click.Choice(list(_NAMES)), help="[default: all]")
@click.option("--max-steps", type=click.IntRange(min=1), help="Instead of the roster's number.")
@click.option("--threads", default=1, show_default=True, help="Other numbers give slightly other weights.")
def main(folder: Path, names: tuple[str, ...], max_steps: int | None, threads: int) -> None:
    """Pre-train policies into FOLDER, a folder for each snapshot."""
    torch.set_num_threads(threads)
    for member in [_NAMES[name] for name in names] or ROSTER:
        pretrain(member, folder, max_steps=max_steps or ROSTER[member], on_note=click.echo)


if __name__ == "__main__":
    main()
