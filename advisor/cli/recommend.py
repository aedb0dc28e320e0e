"""`advisor recommend`"""

import sys

import click

from advisor.cli.options import default_folder, make_sampling, make_task, model_options, probing_options, task_options


@click.command(name="recommend")
@click.argument("model")
@task_options
@probing_options
@model_options
@click.option("--output-dir", metavar="DIR", help="Where results go [default: a folder of its own in advisor-runs].")
def command(model: str, output_dir: str | None, as_json: bool, **arguments) -> None:
    """Say which layer of MODEL to train, with the evidence.

    MODEL is a hub name, a local folder, a GGUF file, or smollm2-135m (the packaged default).
    """
    from advisor.cli.progress import shown_progress
    from advisor.forecast import forecast, guess_parameters

    with shown_progress(forecast(guess_parameters(model), **arguments)) as progress:
        task, sampling = make_task(arguments), make_sampling(arguments)
        from advisor.pipeline import recommend

        result = recommend(
            model,
            None,
            task,
            effort=arguments["effort"],
            decoding=arguments["decoding"],
            sampling=sampling,
            device=arguments["device"],
            dtype=arguments["dtype"],
            trust_remote_code=arguments["trust_remote_code"],
            output_dir=output_dir or default_folder,
            progress=progress,
        )
    if as_json:
        import json

        click.echo(json.dumps(result.as_dict(), indent=1, allow_nan=False, ensure_ascii=False))
    else:
        from rich.console import Console

        from advisor.reports.terminal import print_recommendation

        print_recommendation(result, Console())
    click.echo(f"Report: {result.folder / 'report.html'}", err=True)
    if not result.verdict.has_ranking:
        sys.exit(3)
