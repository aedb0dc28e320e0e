"""Options that several verbs share, and how they become objects."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.completion import files, folders, one_of, rewards, task_names, words
from advisor.cli.settings import general_options
from probes.errors import UsageError

if TYPE_CHECKING:
    from advisor.planning import Plan
    from probes.rollouts import SamplingConfig
    from probes.tasks import Task


def task_options(function: Callable) -> Callable:
    """What the policy is asked and how it is scored."""
    return _all(
        function,
        click.option(
            "--task",
            "task_name",
            metavar="NAME",
            shell_complete=task_names,
            help="Built-in task or reasoning-gym:NAME ('advisor tasks').",
        ),
        click.option(
            "--task-config", multiple=True, metavar="KEY=VALUE", help="Configuration of a reasoning-gym task."
        ),
        click.option(
            "--data",
            metavar="FILE.jsonl",
            shell_complete=files,
            help="Your own prompts: rows with prompt, answer, other columns.",
        ),
        click.option(
            "--reward",
            metavar="NAME",
            shell_complete=rewards,
            help="exact, number, or FILE.py:function with TRL's signature.",
        ),
        one_of(
            "--decoding",
            "greedy",
            "sampled",
            default="greedy",
            help="How the trained policy will be scored; it changes which layers are good.",
        ),
        click.option("--group-size", default=8, show_default=True, help="Completions sampled for each prompt."),
        click.option("--temperature", default=1.0, show_default=True, help="Sampling temperature of the rollouts."),
        click.option("--max-new-tokens", type=int, help="Longest completion [default: what the first rollouts need]."),
        one_of(
            "--prompt-style",
            "auto",
            "chat",
            "plain",
            default="auto",
            help="auto: the chat template where the tokenizer has one.",
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of prompts and sampling."),
    )


def probing_options(function: Callable) -> Callable:
    """How much is measured without training."""
    return _all(
        function,
        one_of("--effort", "static", "probe", "warmup", default="probe", help="How much to measure."),
        click.option("--groups", default=32, show_default=True, help="Prompt groups with reward spread to collect."),
        click.option("--max-prompts", default=128, show_default=True, help="Stop drawing prompts here."),
    )


def model_options(function: Callable) -> Callable:
    """How the model is loaded, and what every verb understands."""
    return _all(
        function,
        click.option(
            "--device",
            default="auto",
            show_default=True,
            shell_complete=words("auto", "cpu", "cuda"),
            help="auto, cpu, cuda, cuda:1, ...",
        ),
        one_of(
            "--dtype",
            "auto",
            "float32",
            "bfloat16",
            "float16",
            default="auto",
            help="Weights in memory; auto keeps the checkpoint's.",
        ),
        click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model."),
        general_options,
    )


def output_option(function: Callable) -> Callable:
    """Where a run is kept."""
    return click.option(
        "--output-dir",
        metavar="DIR",
        shell_complete=folders,
        help="Where results go [default: a folder of its own in advisor-runs].",
    )(function)


def dry_run_option(function: Callable) -> Callable:
    """Only the plan."""
    return click.option("--dry-run", is_flag=True, help="Print plan, cost and time, and run nothing.")(function)


def show_plans(plans: Sequence["Plan"], as_json: bool) -> None:
    """What a dry run prints: JSON is the first plan, with the one that would follow it under its verb."""
    if as_json:
        first, *others = (plan.as_dict() for plan in plans)
        print_json(first | {plan["verb"]: plan for plan in others})
        return
    from rich.console import Console

    from advisor.reports.plan import print_plan

    for i, plan in enumerate(plans):
        if i:
            click.echo()
        print_plan(plan, Console())


def _all(function: Callable, *options: Callable) -> Callable:
    for option in reversed(options):
        function = option(function)
    return function


def make_task(arguments: dict[str, Any]) -> "Task | None":
    """The task that the options describe; None at static effort, which uses none."""
    from probes.tasks import load_task

    if arguments.get("effort") == "static":
        given = [flag for flag in ("task_name", "data", "reward", "task_config") if arguments[flag]]
        if given:
            flag = "--" + given[0].removesuffix("_name").replace("_", "-")
            raise UsageError(f"{flag} has no effect with --effort static, which reads only the weights. Leave it out.")
        return None
    return load_task(
        arguments["task_name"],
        data=arguments["data"],
        reward=arguments["reward"],
        config=parse_pairs(arguments["task_config"], "--task-config", "min_terms=2"),
        seed=arguments["seed"],
    )


def make_sampling(arguments: dict[str, Any]) -> "SamplingConfig":
    """The sampling configuration that the options describe."""
    from probes.rollouts import SamplingConfig

    names = ("groups", "group_size", "max_prompts", "temperature", "max_new_tokens", "prompt_style", "seed")
    return SamplingConfig(**{name: arguments[name] for name in names})


def default_folder(identity: dict[str, Any]) -> Path:
    """``advisor-runs/MODEL-TASK-WHAT-HASH``, what being effort or verb: the same command finds its own run again."""
    from advisor.subject import identity_hash

    what = identity.get("effort") or identity["kind"]
    parts = (identity["model"], identity["task"], what, identity_hash(identity))
    name = "-".join(part.strip("/").split("/")[-1].replace(":", "-") for part in parts if part)
    return Path("advisor-runs") / name


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))


def parse_pairs(pairs: tuple[str, ...], option: str, example: str) -> dict[str, Any]:
    """KEY=VALUE pairs of `option`; values are JSON where they can be. Raises `UsageError` for anything else."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} '{pair}' is not KEY=VALUE, for example {example}.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found
