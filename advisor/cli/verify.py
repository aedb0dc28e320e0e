"""`advisor verify`"""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from advisor.cli.completion import folders, models
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
from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.training.state import TrainingState

_INHERITED = ("decoding", "group_size", "temperature", "max_new_tokens", "prompt_style", "seed")


@click.command(name="verify")
@click.argument("model", required=False, shell_complete=models)
@click.option("--layer", metavar="K", help="The layer to prove; several (11,12 or 3-6) are trained together.")
@click.option(
    "--from", "source", metavar="DIR", shell_complete=folders, help="Prove the pick of the recommendation in DIR."
)
@click.option("--also", metavar="K,K,...", help="More layers to train beside it.")
@task_options
@training_options
@worker_options
@model_options
@output_option
@dry_run_option
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    layer: str | None,
    source: str | None,
    also: str | None,
    output_dir: str | None,
    dry_run: bool,
    as_json: bool,
    **arguments,
) -> None:
    """Train one layer of MODEL by RL and say what that brings, beside the middle layer and all parameters.

    Exit code 0 where the pick is confirmed, 3 where it is not.
    """
    from advisor.cli.progress import shown_progress

    if (source is None) == (layer is None):
        raise UsageError("Say what to prove: --layer K with a MODEL, or --from DIR with the pick of a recommendation.")
    if source is None and model is None:
        raise UsageError("MODEL is missing: a hub name, a folder, a GGUF file, or smollm2-135m.")
    picks = None if layer is None else parse_layers(layer, "--layer")
    more = parse_layers(also, "--also") if also else []
    with shown_progress({"start": 4.0}) as progress:
        if source is not None:
            model, picks, task = _recommended(source, model, context, arguments)
            from advisor.verification import folder_in

            output_dir = output_dir or folder_in(source)
        else:
            task = make_task(arguments)
        options, start = make_options(arguments), _warmed_up(source, picks) if source else None
        kept = {"output_dir": output_dir or default_folder, "progress": progress, "start": start}
        if dry_run:
            from advisor.planning import plan_proof

            plan = plan_proof(model, task, picks, more, options, **kept)
        else:
            from advisor.verification import verify

            result = verify(model, None, task, layer=picks, also=more, options=options, **kept)
    if dry_run:
        show_plans([plan], as_json)
        return
    finish(result, as_json)


def _warmed_up(source: str, picks: list[int]) -> "TrainingState | None":
    """The state that the pick's warm-up has reached, where the recommendation made one."""
    from pathlib import Path

    from advisor.warming import load_finalist

    return load_finalist(Path(source).expanduser(), picks[0]) if len(picks) == 1 else None


def _recommended(source: str, model: str | None, context: click.Context, arguments: dict[str, Any]):
    """Model, pick and task of an earlier recommendation; its protocol stands where the command line says nothing."""
    from advisor.verification import WARMUP_SETTINGS, read_recommendation, task_of

    found = read_recommendation(source)
    warmup = found["protocol"].get("warmup") or {}
    told = {**found["protocol"], **warmup}
    for name in (*_INHERITED, *((*WARMUP_SETTINGS, "validation") if warmup else ())):
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if not given and told.get(name) is not None:
            arguments[name] = told[name]
    told = any(arguments[name] for name in ("task_name", "data", "reward", "task_config"))
    return model or found["model"]["name"], found["pick"], make_task(arguments) if told else task_of(found)
