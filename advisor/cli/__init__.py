"""The command line: one file a verb, imported only when that verb is used."""

import importlib
import sys

import click

VERBS = {  # name: (module, one line for --help)
    "recommend": ("advisor.cli.recommend", "Say which layer of MODEL to train, with the evidence."),
    "probe": ("advisor.cli.probe", "Print the layer table of MODEL alone."),
    "verify": ("advisor.cli.verify", "Train one layer of MODEL and say what that brings."),
    "sweep": ("advisor.cli.sweep", "Train every layer of MODEL: the measured profile."),
    "calibrate": ("advisor.cli.calibrate", "Fit predictors on your own sweeps beside the shipped ones."),
    "export": ("advisor.cli.export", "Write the pick as configuration of a training framework."),
    "report": ("advisor.cli.report", "One policy's page again, or a report on a whole family."),
    "estimate": ("advisor.cli.estimate", "Say what training one layer of MODEL costs, beside all of it."),
    "tasks": ("advisor.cli.tasks", "List the built-in tasks and how to bring your own."),
    "probes": ("advisor.cli.probes", "List the probes with unit, cost and source."),
    "env": ("advisor.cli.env", "Print versions and machine, for reports of problems."),
    "completion": ("advisor.cli.completion", "Print what makes your shell complete commands."),
}


class _Verbs(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        return importlib.import_module(VERBS[name][0]).command

    def resolve_command(self, context: click.Context, args: list[str]):
        if args and args[0] not in VERBS:
            from probes.errors import unknown_name

            raise click.UsageError(str(unknown_name("command", args[0], VERBS, "'advisor --help' describes them.")))
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # from the table, so that no verb is imported
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="layer-advisor")
def cli() -> None:
    """Find out which transformer layer to train by reinforcement learning, before you spend the GPU time.

    Results go to stdout, progress to stderr. Exit codes: 0 a recommendation or a confirmed pick, 1 the run failed,
    2 wrong usage, 3 no layer can be told from another, or the pick is not confirmed.
    """


def main() -> None:
    """Entry point: expected errors become one line and their exit code; --debug shows the traceback."""
    from advisor.cli.settings import Settings
    from probes.errors import AdvisorError

    settings = Settings()
    try:
        code = cli.main(standalone_mode=False, obj=settings)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AdvisorError as error:
        if settings.debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nStopped. Finished measurements are kept: run the same command again to go on.", err=True)
        sys.exit(1)
    except Exception as error:
        if settings.debug:
            raise
        click.echo(f"Error: {type(error).__name__}: {error} (--debug shows where)", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
