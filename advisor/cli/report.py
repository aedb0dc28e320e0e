"""`advisor report`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.completion import folders, models, one_of
from advisor.cli.options import print_json
from advisor.cli.settings import general_options, hint
from probes.errors import UsageError

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from advisor.recommendation import Recommendation


def _family_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    import calibration  # and no more: the shell waits

    places = Path(calibration.__file__).parent.glob("corpus/small_policies/*.jsonl.gz")
    return sorted({name for name in ("all", *(p.name.split("-")[0] for p in places)) if name.startswith(begun)})


@click.command(name="report")
@click.argument("runs", nargs=-1, metavar="[DIR]...", shell_complete=folders)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="NAME",
    shell_complete=_family_names,
    help="Sweeps of a model family that come with the advisor; all: every family.",
)
@click.option("--published", is_flag=True, help="The sweeps of arXiv 2607.01232.")
@one_of("--decoding", "greedy", "sampled", default="greedy", help="Which scores a family report compares.")
@click.option(
    "--for", "advised", metavar="MODEL", shell_complete=models, help="Recommend a layer of this member, not measured."
)
@click.option("--n-layers", type=int, metavar="N", help="The same, for a member of so many layers.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option(
    "--output-dir",
    metavar="DIR",
    shell_complete=folders,
    help="Where the report goes [default: DIR for one, a folder in advisor-reports for a family].",
)
@general_options
def command(
    runs: tuple[str, ...],
    families: tuple[str, ...],
    published: bool,
    decoding: str,
    advised: str | None,
    n_layers: int | None,
    trust_remote_code: bool,
    output_dir: str | None,
    as_json: bool,
) -> None:
    """One policy's page again, or a report on a whole family.

    DIR are output folders of advisor recommend, verify and sweep. One of them alone has its page made again. Several,
    --family or --published make a family report: where contributions lie over depth, how far policies and tasks agree,
    what transfers, the best zone, and with --for or --n-layers a recommendation for a member that was not measured.
    """
    families = (*families, *(("published",) if published else ()))
    if not runs and not families:
        from calibration.profiles import known_families

        raise UsageError(
            "Say what to report on: DIR of a run, several for a family report, --published, or --family NAME "
            f"({', '.join(known_families())}, or all)."
        )
    if len(runs) == 1 and not families:
        if advised is not None or n_layers is not None:
            raise UsageError("--for and --n-layers ask a family: give several DIR, --family NAME or --published.")
        _one(Path(runs[0]).expanduser(), output_dir, as_json)
        return
    from advisor.family import family_report

    member = _member(advised, n_layers, trust_remote_code)
    found = family_report(runs, families, decoding=decoding, advise=member)
    folder = Path(output_dir).expanduser() if output_dir else _default_folder(runs, families, decoding)
    found.report(folder)
    if as_json:
        print_json(found.as_dict())
    else:
        from rich.console import Console

        from advisor.reports.family_text import print_family

        print_family(found, Console())
    hint(f"Report: {folder / 'report.html'}")


def _one(source: Path, output_dir: str | None, as_json: bool) -> None:
    """The page of a single run, made again from what the run left."""
    from rich.console import Console

    from advisor.family import RANKING, result_file

    ranked = result_file(source).name == RANKING
    folder = Path(output_dir).expanduser() if output_dir else source
    found = _load(source, ranked)
    found.report(folder)
    if as_json:
        print_json(found.as_dict())
    elif ranked:
        from advisor.reports.terminal import print_recommendation

        print_recommendation(found, Console())
    else:
        from advisor.reports.contributions import print_contributions

        print_contributions(found, Console())
    hint(f"Report: {folder / 'report.html'}")


def _load(source: Path, ranked: bool) -> "Recommendation | Contributions":
    if ranked:
        from advisor.recommendation import Recommendation

        return Recommendation.load(source)
    from advisor.contributions import Contributions

    return Contributions.load(source)


def _member(model: str | None, n_layers: int | None, trust_remote_code: bool) -> tuple[str, int] | None:
    """Name and number of layers of the member that is asked about."""
    if model is not None and n_layers is not None:
        raise UsageError("--for reads the number of layers from the model: leave out --n-layers, or --for.")
    if n_layers is not None:
        return ("a member", n_layers)
    if model is None:
        return None
    from advisor.subject import Subject
    from probes.stack import find_stack

    place: dict[str, Any] = {"device": "cpu", "dtype": "auto", "trust_remote_code": trust_remote_code}
    subject = Subject(model, None, **place, weights=False)
    return subject.name.rstrip("/").rsplit("/", 1)[-1], len(find_stack(subject.skeleton))


def _default_folder(runs: tuple[str, ...], families: tuple[str, ...], decoding: str) -> Path:
    """``advisor-reports/NAME-DECODING``; runs are told apart by a hash of their folders."""
    from advisor.subject import identity_hash

    own = [f"runs-{identity_hash({'runs': sorted(str(Path(run).resolve()) for run in runs)})}"] if runs else []
    return Path("advisor-reports") / "-".join([*families, *own, decoding])
