"""Options of the verbs that train (`verify`, `sweep`, `recommend --verify`), and how they become objects."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from advisor.cli.completion import one_of
from advisor.cli.options import parse_pairs, print_json
from advisor.cli.settings import hint
from advisor.processes import is_first
from probes.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from advisor.measuring_options import MeasuringOptions
    from advisor.warming import Warmup


def training_options(function: Callable) -> Callable:
    """Protocol, budget and place of training runs."""
    options = [
        click.option("--steps", default=30, show_default=True, help="Training steps of each run."),
        click.option("--seeds", default=3, show_default=True, help="Training seeds of each arm."),
        click.option(
            "--learning-rates",
            default="3e-5,1e-4,3e-4",
            show_default=True,
            metavar="A,B,...",
            help="Rates tried; each arm takes the one that scores best on validation prompts.",
        ),
        one_of("--algorithm", "grpo", "dr_grpo", default="grpo", help="The RL algorithm."),
        click.option("--prompts-per-step", default=16, show_default=True, help="Prompts of one step."),
        click.option("--kl", default=0.0, show_default=True, help="Weight of the divergence from the base policy."),
        click.option(
            "--updates-per-batch", default=1, show_default=True, help="Passes over each batch of completions."
        ),
        click.option("--warmup-steps", default=2, show_default=True, help="Steps until the full rate."),
        click.option("--gradient-checkpointing", is_flag=True, help="Less memory for more time."),
        click.option("--held-out", default=256, show_default=True, help="Score on at most so many held-out prompts."),
        click.option(
            "--sampled-completions", default=4, show_default=True, help="Completions of one prompt in sampled scores."
        ),
        click.option(
            "--validation",
            default=256,
            show_default=True,
            help="Prompts that rates are chosen and warm-ups scored on, at most a fifth of the training prompts.",
        ),
        click.option(
            "--interval-width",
            default=0.3,
            show_default=True,
            help="Widest 90 % interval of a score that the held-out prompts may give (rewards from 0 to 1).",
        ),
        one_of(
            "--reference",
            "full",
            "none",
            default="full",
            help="none: skip full-parameter training and report the gain over the base alone.",
        ),
        click.option("--budget", metavar="TIME", help="Take fewer steps so that all runs fit: 90s, 30m, 2h."),
        one_of("--engine", "native", "trl", default="native", help="trl: TRL's GRPOTrainer."),
        click.option(
            "--trl-option", "trl_options", multiple=True, metavar="KEY=VALUE", help="A field of TRL's GRPOConfig."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def worker_options(function: Callable) -> Callable:
    """Where runs are performed."""
    function = click.option(
        "--ray",
        is_flag=False,
        flag_value="local",
        metavar="[ADDRESS]",
        help="Spread the runs over a Ray cluster; without an address, over one of --workers on this machine.",
    )(function)
    return click.option(
        "--workers", default=1, show_default=True, help="Processes that train at the same time, each with its own copy."
    )(function)


def race_options(function: Callable) -> Callable:
    """The race of effort warmup."""
    options = [
        click.option(
            "--race-steps",
            type=int,
            help="Longest warm-up in steps [default: 8, or --steps without --verify].",
        ),
        click.option(
            "--race-budget",
            metavar="TIME",
            help="Bound on the race's time [default: none, or --budget without --verify].",
        ),
        click.option(
            "--race-rates", default="1e-4,3e-4,1e-3", show_default=True, metavar="A,B,...", help="Rates that are raced."
        ),
        one_of(
            "--race-on",
            "own",
            "base",
            default="own",
            help="Completions that warm-ups train on: each layer's own, or the base policy's, drawn once for all.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def make_warmup(arguments: dict[str, Any], prove: bool, context: click.Context) -> "Warmup":
    """The race that the command line describes; without a verification, --steps and --budget are the race's."""
    from advisor.warming import Warmup
    from calibration.race import CALIBRATED, RaceRules, rungs_up_to

    steps, budget, on = arguments["race_steps"], arguments["race_budget"], arguments["race_on"]
    if not prove:
        given = context.get_parameter_source("steps") is not ParameterSource.DEFAULT
        steps = arguments["steps"] if steps is None and given else steps
        budget = arguments["budget"] if budget is None else budget
    if steps is not None and steps < 1:
        raise UsageError(f"{steps} steps are too few for a race: give at least 1.")
    if on not in ("own", "base"):
        raise unknown_name("race-on", on, ("own", "base"), "Pass one of these as --race-on.")
    if arguments["validation"] < 2:
        raise UsageError(f"--validation {arguments['validation']} is too few for a race: give at least 2.")
    steps, rules = steps or CALIBRATED.rungs[-1], replace(CALIBRATED, prompts=arguments["validation"])
    if budget is None:
        rules = replace(rules, rungs=(steps,))
    else:  # a race: the better half goes on
        rules = replace(rules, rungs=rungs_up_to(steps), keep=RaceRules.keep)
    return Warmup(
        make_options({**arguments, "budget": None, "engine": "native", "trl_options": ()}).protocol,
        _rates(arguments["race_rates"], "--race-rates"),
        rules,
        _seconds(budget, "--race-budget" if arguments["race_budget"] else "--budget"),
        on == "base",
    )


def make_options(arguments: dict[str, Any]) -> "MeasuringOptions":
    """The measuring options that the command line describes."""
    from advisor.measuring_options import MeasuringOptions
    from calibration.protocol import Protocol
    from probes.training import TrainingConfig

    names = ("algorithm", "steps", "prompts_per_step", "group_size", "kl", "updates_per_batch", "warmup_steps")
    names += ("temperature", "prompt_style", "seed", "gradient_checkpointing")
    training = TrainingConfig(**{name: arguments[name] for name in names})
    protocol = Protocol(
        training,
        learning_rates=_rates(arguments["learning_rates"]),
        seeds=arguments["seeds"],
        rate_by=arguments.get("rate_by", "first_seed"),
        decoding=arguments["decoding"],
        held_out=arguments["held_out"],
        validation=arguments["validation"],
        sampled_completions=arguments["sampled_completions"],
        engine=arguments["engine"],
    )
    return MeasuringOptions(
        protocol,
        max_new_tokens=arguments["max_new_tokens"],
        reference=arguments["reference"],
        budget=_seconds(arguments["budget"]),
        interval_width=arguments["interval_width"],
        workers=arguments.get("workers", 1),
        ray=arguments.get("ray"),
        device=arguments["device"],
        dtype=arguments["dtype"],
        trust_remote_code=arguments["trust_remote_code"],
        engine_options=parse_pairs(arguments["trl_options"], "--trl-option", "use_vllm=true"),
    )


def finish(result: "Contributions", as_json: bool, quiet: bool = False) -> None:
    """Print a verification or sweep and end with exit code 3 where it proves nothing; `quiet` leaves stdout alone.

    Only the first of several processes speaks: a launcher ends all of them when one ends with another code than 0.
    """
    if not is_first():
        return
    if as_json:
        print_json(result.as_dict())
    elif not quiet:
        from rich.console import Console

        from advisor.reports.contributions import print_contributions

        print_contributions(result, Console())
    if result.folder:
        hint(f"Report: {result.folder / 'report.html'}")
    if not result.proven:
        sys.exit(3)


def _rates(text: str, option: str = "--learning-rates") -> tuple[float, ...]:
    try:
        rates = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"{option} '{text}' is not a list of numbers, for example 3e-5,1e-4.") from error
    return tuple(sorted(set(rates)))


def parse_layers(text: str, option: str) -> list[int]:
    """Layer indices from "0,4,8" or "3-6". Raises `UsageError` for anything else."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise UsageError(f"{option} '{text}' is not a list of layers: write numbers, for example 0,4,8 or 3-6.")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if last < first:
            raise UsageError(f"{option} '{text}': the range {first}-{last} is empty. Write {last}-{first}.")
        found += range(first, last + 1)
    return found


def _seconds(text: str | None, option: str = "--budget") -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match:
        raise UsageError(f"{option} '{text}' is not a time: write a number with s, m or h, for example 30m.")
    return float(match.group(1)) * {"s": 1, "m": 60, "h": 3600}[match.group(2)]
