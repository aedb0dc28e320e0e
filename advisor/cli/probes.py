"""`advisor probes`"""

import click

from advisor.cli.options import print_json
from advisor.cli.settings import general_options


@click.command(name="probes")
@general_options
def command(as_json: bool) -> None:
    """List the probes with unit, cost and source."""
    from advisor.store import SCHEMA_VERSION
    from probes.registry import list_probes

    probes = list_probes()
    if as_json:
        told = [
            {
                "name": p.name,
                "effort": p.effort,
                "cost": p.cost,
                "source": p.source,
                "columns": [vars(c) for c in p.columns],
            }
            for p in probes
        ]
        print_json({"schema_version": SCHEMA_VERSION, "probes": told})
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for p in probes:
        console.print(f"[bold]{p.name}[/bold]  (effort {p.effort})", highlight=False)
        console.print(f"  cost: {p.cost}\n  source: {p.source}", highlight=False)
        table = Table(box=None, header_style="bold", padding=(0, 1))
        for heading, justify in (
            ("column", "left"),
            ("unit", "left"),
            ("meaning", "left"),
        ):
            table.add_column(heading, justify=justify, overflow="fold")
        for c in p.columns:
            table.add_row(c.name, c.unit, c.meaning)
        console.print(table)
        console.print()
