"""`advisor env`"""

import click


@click.command(name="env")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(as_json: bool, debug: bool) -> None:
    """Print versions and machine, for reports of problems."""
    from advisor.environment import environment

    found = environment()
    if as_json:
        import json

        click.echo(json.dumps(found, indent=1))
        return
    flat = {k: v for k, v in found.items() if k != "packages"} | found["packages"]
    width = max(map(len, flat))
    for name, value in flat.items():
        click.echo(f"{name:{width}}  {', '.join(value) or 'none' if isinstance(value, list) else value}")
