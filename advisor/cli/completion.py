"""`advisor completion`, and what the shell is offered for each kind of value."""

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[click.Context, click.Parameter, str], list]


def words(*choices: str) -> Completer:
    """These words."""
    return lambda _context, _parameter, begun: [word for word in choices if word.startswith(begun)]


def one_of(flag: str, *choices: str, default: str, help: str) -> Callable:
    """An option that takes one of some words: shown in --help and offered by the shell.

    Others are refused where they are used, with the nearest word, since the library takes them too.
    """
    return click.option(
        flag,
        default=default,
        show_default=True,
        metavar="|".join(choices),
        shell_complete=words(*choices),
        help=help,
    )


def files(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shell's own completion of files."""
    return [CompletionItem(begun, type="file")]


def folders(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shell's own completion of folders."""
    return [CompletionItem(begun, type="dir")]


def models(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The packaged default, or a file or folder."""
    from probes.packaged import NAME

    return [CompletionItem(NAME)] if begun and NAME.startswith(begun) else files(context, parameter, begun)


def rewards(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The rewards with a name, or a file."""
    named = [CompletionItem(name) for name in ("exact", "number") if begun and name.startswith(begun)]
    return named or files(context, parameter, begun)


def task_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The built-in tasks."""
    from probes.tasks import list_tasks

    return [CompletionItem(name, help=text) for name, text in list_tasks().items() if name.startswith(begun)]


def probe_names(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shipped probes, or a file with one's own."""
    from probes.registry import SHIPPED

    found = [CompletionItem(name) for name in SHIPPED if name.startswith(begun)]
    return found or files(context, parameter, begun)


@click.command(name="completion")
@click.argument("shell", shell_complete=words(*SHELLS))
def command(shell: str) -> None:
    """Print what makes SHELL (bash, zsh or fish) complete verbs, options and their values.

    \b
    bash:  echo 'eval "$(advisor completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(advisor completion zsh)"' >> ~/.zshrc
    fish:  advisor completion fish > ~/.config/fish/completions/advisor.fish
    """
    from advisor.cli import cli
    from probes.errors import unknown_name

    if shell not in SHELLS:
        raise unknown_name("shell", shell, SHELLS, "Name one of these.")
    click.echo(get_completion_class(shell)(cli, {}, "advisor", "_ADVISOR_COMPLETE").source())
