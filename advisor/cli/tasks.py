"""`advisor tasks`"""

import click

from advisor.cli.options import print_json
from advisor.cli.settings import general_options


@click.command(name="tasks")
@general_options
def command(as_json: bool) -> None:
    """List the built-in tasks and how to bring your own."""
    from advisor.store import SCHEMA_VERSION
    from probes.tasks import DEFAULT, list_tasks

    tasks = list_tasks()
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "default": DEFAULT, "tasks": tasks})
        return
    width = max(map(len, tasks))
    for name, text in tasks.items():
        click.echo(f"{name:{width}}  {text}{' (the default)' if name == DEFAULT else ''}")
    click.echo(
        "\nYour own: --data FILE.jsonl --reward exact | number | FILE.py:function\n"
        'Each line of the file is an object with "prompt" (text or chat messages), "answer", and any other columns.\n'
        "exact: the stripped completion equals the answer. number: its last number does.\n"
        "A function has the signature of TRL's reward functions."
    )
