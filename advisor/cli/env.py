"""`advisor env`"""

import click

from advisor.cli.options import print_json
from advisor.cli.settings import general_options


@click.command(name="env")
@general_options
def command(as_json: bool) -> None:
    """Print versions and machine, for reports of problems."""
    from advisor.environment import environment
    from advisor.store import SCHEMA_VERSION

    found = environment()
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **found})
        return
    flat = {k: v for k, v in found.items() if k != "packages"} | found["packages"]
    width = max(map(len, flat))
    for name, value in flat.items():
        click.echo(f"{name:{width}}  {', '.join(value) or 'none' if isinstance(value, list) else value}")
