"""`advisor recommend`"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.completion import models
from advisor.cli.options import (
    default_folder,
    dry_run_option,
    make_sampling,
    make_task,
    model_options,
    output_option,
    print_json,
    probing_options,
    show_plans,
    task_options,
)
from advisor.cli.settings import hint
from advisor.cli.training_options import (
    finish,
    make_options,
    make_warmup,
    race_options,
    training_options,
    worker_options,
)
from probes.errors import UsageError

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from advisor.measuring_options import MeasuringOptions
    from advisor.recommendation import Recommendation
    from probes.tasks import Task


@click.command(name="recommend")
@click.argument("model", shell_complete=models)
@task_options
@probing_options
@race_options
@click.option("--layers", default=1, show_default=True, metavar="N", help="How many layers to pick.")
@click.option(
    "--predictor",
    metavar="PATH",
    help="What advisor calibrate wrote: the folder, or a file [default: the shipped one].",
)
@click.option("--verify", "prove", is_flag=True, help="Then train the pick and prove it (options below).")
@training_options
@worker_options
@model_options
@output_option
@dry_run_option
@click.pass_context
def command(
    context: click.Context,
    model: str,
    output_dir: str | None,
    prove: bool,
    dry_run: bool,
    as_json: bool,
    **arguments,
) -> None:
    """Say which layer of MODEL to train, with the evidence.

    MODEL is a hub name, a local folder, a GGUF file, or smollm2-135m (the packaged default). Effort warmup trains all
    layers together for a few steps and races them. Training options matter at that effort and with --verify, which is
    as `advisor verify --from` afterwards; without --verify, --steps and --budget are those of the race.
    """
    from advisor.cli.progress import shown_progress
    from advisor.forecast import forecast, guess_parameters

    plan = forecast(guess_parameters(model), **arguments)
    if arguments["effort"] == "warmup":
        plan["warm up all layers"] = sum(plan.values())  # until its length is known
    with shown_progress(plan) as progress:
        task, sampling = make_task(arguments), make_sampling(arguments)
        warmup = make_warmup(arguments, prove, context) if arguments["effort"] == "warmup" else None
        options = _ready_to_prove(task, arguments) if prove else None
        place = {name: arguments[name] for name in ("device", "dtype", "trust_remote_code")}
        rules = {"predictor": arguments["predictor"], "layers": arguments["layers"], "warmup": warmup}
        what = {"effort": arguments["effort"], "decoding": arguments["decoding"], "sampling": sampling}
        kept = {"output_dir": output_dir or default_folder, "progress": progress}
        if dry_run:
            from advisor.planning import plan_proof, plan_recommendation

            plans = [plan_recommendation(model, task, **what, **rules, **place, **kept)]
            plans += [plan_proof(model, task, (), (), options, progress=progress)] if prove else []
        else:
            from advisor.pipeline import recommend

            result = recommend(model, None, task, **what, **rules, **place, **kept)
    if dry_run:
        show_plans(plans, as_json)
        return
    if as_json and not prove:
        print_json(result.as_dict())
    elif not as_json:
        from rich.console import Console

        from advisor.reports.terminal import print_recommendation

        print_recommendation(result, Console())
    hint(f"Report: {result.folder / 'report.html'}")
    if prove and result.pick:
        proof = _prove(model, task, result, options)
        if as_json:
            print_json(result.as_dict() | {"verification": proof.as_dict()})
        else:
            click.echo()
        finish(proof, as_json=False, quiet=as_json)
    elif as_json and prove:
        print_json(result.as_dict() | {"verification": None})
    if not result.verdict.has_ranking:
        sys.exit(3)


def _ready_to_prove(task: "Task | None", arguments: dict[str, Any]) -> "MeasuringOptions":
    """The options of the verification, checked before the recommendation takes its time."""
    from advisor.measuring import check_held_out
    from calibration.protocol import split_task

    if task is None:
        raise UsageError("--verify trains on a task, which --effort static has not: use --effort probe.")
    options = make_options(arguments)
    check_held_out(split_task(task, options.protocol), options.interval_width)
    return options


def _prove(model: str, task: "Task", result: "Recommendation", options: "MeasuringOptions") -> "Contributions":
    from advisor.cli.progress import shown_progress
    from advisor.verification import folder_in, verify

    options = replace(options, max_new_tokens=result.protocol["max_new_tokens"])
    with shown_progress({"start": 1.0}) as progress:
        folder = folder_in(result.folder)
        return verify(
            model,
            None,
            task,
            layer=result.pick,
            options=options,
            output_dir=folder,
            progress=progress,
            start=result.begun,
        )
