"""A recommendation for people and for programs: terminal, JSON, Markdown, HTML."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import RunError

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from advisor.family import FamilyReport
    from advisor.recommendation import Recommendation

FILES = ("ranking.json", "report.md", "report.html")


def write_reports(recommendation: "Recommendation", folder: Path) -> None:
    """Write every report file into `folder`, each whole or not at all."""
    from advisor.reports.html import html_report
    from advisor.reports.markdown import markdown_report

    texts = (_json(recommendation.as_dict()), markdown_report(recommendation), html_report(recommendation))
    _write(folder, dict(zip(FILES, texts, strict=True)))


def write_contributions(found: "Contributions", folder: Path) -> None:
    """Write the report files of a verification or sweep into `folder`, each whole or not at all."""
    from advisor.reports.contributions import html_contributions, markdown_contributions

    texts = {
        f"{found.kind}.json": _json(found.as_dict()),
        "report.md": markdown_contributions(found),
        "report.html": html_contributions(found),
    }
    _write(folder, texts)


def write_family(report: "FamilyReport", folder: Path) -> None:
    """Write the files of a family report into `folder`, each whole or not at all."""
    from advisor.reports.family_html import html_family
    from advisor.reports.family_text import markdown_family

    texts = {
        "family.json": _json(report.as_dict()),
        "report.md": markdown_family(report),
        "report.html": html_family(report),
    }
    _write(folder, texts)


def _json(value: dict) -> str:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _write(folder: Path, texts: dict[str, str]) -> None:
    from advisor.store import write_whole

    try:
        for name, text in texts.items():
            write_whole(folder / name, text)
    except OSError as error:
        raise RunError(
            f"The report cannot be written into '{folder}' ({error.strerror or error}). Finished measurements are in "
            "its journal: make room and run the same command again."
        ) from error
