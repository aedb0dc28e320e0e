"""`advisor sweep`"""

import click

from advisor.cli.completion import models
from advisor.cli.options import (
    default_folder,
    dry_run_option,
    make_task,
    model_options,
    output_option,
    show_plans,
    task_options,
)
from advisor.cli.training_options import finish, make_options, parse_layers, training_options, worker_options


@click.command(name="sweep")
@click.argument("model", shell_complete=models)
@click.option("--layers", metavar="K,K,...", help="Only these layers, for example 0,4,8 or 3-6 [default: every layer].")
@task_options
@training_options
@worker_options
@model_options
@output_option
@dry_run_option
def command(model: str, layers: str | None, output_dir: str | None, dry_run: bool, as_json: bool, **arguments) -> None:
    """Train every layer of MODEL by RL, every seed at every rate: the measured profile.

    Exit code 0 with a profile, 3 where full-parameter training shows no gain to have a share of.
    """
    from advisor.cli.progress import shown_progress

    chosen = parse_layers(layers, "--layers") if layers else None
    with shown_progress({"start": 4.0}) as progress:
        task = make_task(arguments)
        options = make_options({**arguments, "rate_by": "every_seed"})
        kept = {"output_dir": output_dir or default_folder, "progress": progress}
        if dry_run:
            from advisor.planning import plan_sweep

            plan = plan_sweep(model, task, chosen, options, **kept)
        else:
            from advisor.sweeping import sweep

            result = sweep(model, None, task, layers=chosen, options=options, **kept)
    if dry_run:
        show_plans([plan], as_json)
        return
    finish(result, as_json)
