"""Make the zoo: `python -m calibration.zoo DIR [--family NAME ...] [--layers N ...]`"""

from pathlib import Path

import click
import torch

from calibration.zoo.families import FAMILIES
from calibration.zoo.pretraining import Member, pretrain


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--family", "families", multiple=True, type=click.Choice(list(FAMILIES)), help="[default: all]")
@click.option("--layers", multiple=True, type=click.IntRange(min=2), default=(8,), show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--max-steps", default=4000, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    folder: Path,
    families: tuple[str, ...],
    layers: tuple[int, ...],
    width: int,
    seed: int,
    max_steps: int,
    threads: int,
) -> None:
    """Pre-train policies into FOLDER, a folder for each snapshot."""
    torch.set_num_threads(threads)
    for family in families or FAMILIES:
        for n_layers in layers:
            pretrain(Member(family, n_layers, width, seed), folder, max_steps=max_steps, on_note=click.echo)


if __name__ == "__main__":
    main()
