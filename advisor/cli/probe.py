"""`advisor probe`"""

import click

from advisor.cli.completion import folders, models, probe_names
from advisor.cli.options import (
    dry_run_option,
    make_sampling,
    make_task,
    model_options,
    print_json,
    probing_options,
    show_plans,
    task_options,
)
from probes.errors import UsageError


@click.command(name="probe")
@click.argument("model", shell_complete=models)
@task_options
@probing_options
@model_options
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="NAME",
    shell_complete=probe_names,
    help="Only this probe (may be given again).",
)
@click.option(
    "--output-dir", metavar="DIR", shell_complete=folders, help="Also write table.json and the journal there."
)
@dry_run_option
def command(
    model: str, probes: tuple[str, ...], output_dir: str | None, dry_run: bool, as_json: bool, **arguments
) -> None:
    """Print the layer table of MODEL alone: every probe, every layer, no ranking."""
    from advisor.cli.progress import shown_progress
    from advisor.forecast import forecast, guess_parameters

    if arguments["effort"] == "warmup":
        raise UsageError("--effort warmup trains layers, which is no probe: use advisor recommend --effort warmup.")
    with shown_progress(forecast(guess_parameters(model), **arguments)) as progress:
        task, sampling = make_task(arguments), make_sampling(arguments)
        from advisor.survey import Options, survey

        options = Options(
            arguments["effort"],
            arguments["decoding"],
            sampling,
            probes or None,
            arguments["device"],
            arguments["dtype"],
            arguments["trust_remote_code"],
        )
        if dry_run:
            from advisor.planning import plan_survey

            plan = plan_survey("probe", model, task, options, output_dir, progress)
        else:
            found = survey(model, None, task, options, output_dir, progress)
    if dry_run:
        show_plans([plan], as_json)
        return
    content = found.as_dict()
    if found.folder is not None:
        with found.folder:
            found.folder.write_json("table.json", content)
    if as_json:
        print_json(content)
    else:
        from rich.console import Console

        from advisor.reports.terminal import print_table

        print_table(found, Console())
