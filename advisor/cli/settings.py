"""What every verb understands: a configuration file, JSON instead of tables, silence, tracebacks."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from advisor.cli.completion import files
from probes.errors import UsageError, unknown_name


@dataclass
class Settings:
    """Set by options of whichever verb runs; read where something is said, and where an error is shown."""

    debug: bool = False
    quiet: bool = False


def settings() -> Settings:
    """Those of the command that is running; the defaults outside of one."""
    context = click.get_current_context(silent=True)
    return (context and context.find_object(Settings)) or Settings()


def hint(message: str) -> None:
    """A line on stderr, beside the results; nothing under --quiet."""
    if not settings().quiet:
        click.echo(message, err=True)


def general_options(function: Callable) -> Callable:
    """--config, --json, --quiet and --debug; only --json reaches the verb, as ``as_json``."""
    options = [
        click.option(
            "--config",
            metavar="FILE.yaml",
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            shell_complete=files,
            help="Options from a YAML file; the command line goes first.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option(
            "--quiet", is_flag=True, expose_value=False, callback=_set, help="No progress and no hints on stderr."
        ),
        click.option("--debug", is_flag=True, expose_value=False, callback=_set, help="Show tracebacks."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _set(context: click.Context, option: click.Parameter, given: bool) -> None:
    setattr(context.ensure_object(Settings), option.name, given)


def _read_config(context: click.Context, _: click.Parameter, file: str | None) -> None:
    """Make the file's values this verb's defaults: those at its top level, then those under the verb's name."""
    if file is None or context.resilient_parsing:
        return
    content = _load(file)
    from advisor.cli import VERBS

    sections = {k: v or {} for k, v in content.items() if k in VERBS and (v is None or isinstance(v, Mapping))}
    told = {key: value for key, value in content.items() if key not in sections}
    told |= sections.get(context.info_name, {})
    options, context.default_map = _options(context.command), {}
    for key, value in told.items():
        option = options.get(str(key).replace("_", "-"))
        if option is None:
            raise unknown_name(
                "option",
                str(key),
                sorted(options),
                f"It stands in '{file}', for {context.info_name}. What only another verb understands goes under that "
                f"verb's name, as in 'VERB: {{{key}: …}}'.",
            )
        if value is not None:
            context.default_map[option.name] = _as_given(option, value, f"'{file}', {key}")


def _load(file: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).replace("\n", " ")
        raise UsageError(f"The configuration '{file}' cannot be read: {reason}. Give a YAML file.") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"The configuration '{file}' holds no options: write lines such as 'effort: static'.")
    return dict(content)


def _options(command: click.Command) -> dict[str, click.Parameter]:
    """Parameters by the name that a user knows: the long option without its dashes, or the argument."""
    found = {}
    for parameter in command.params:
        names = [parameter.name] if isinstance(parameter, click.Argument) else parameter.opts
        found |= {name.lstrip("-").replace("_", "-"): parameter for name in names}
    return {name: parameter for name, parameter in found.items() if name not in ("config", "help")}


def _as_given(parameter: click.Parameter, value: Any, where: str) -> Any:
    """A YAML value as the command line would spell it."""
    if isinstance(value, Mapping):
        if not parameter.multiple:
            raise UsageError(f"{where}: a mapping is not allowed here.")
        return [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in value.items()]
    many = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    if isinstance(value, list):
        told = [str(one) for one in value]
        return told if many else ",".join(told)
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise UsageError(f"{where}: {value!r} is not allowed; write true or false.")
        return value
    return [str(value)] if many else str(value)
