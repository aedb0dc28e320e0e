"""A recommendation for people and for programs: terminal, JSON, Markdown, HTML."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import RunError

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation

FILES = ("ranking.json", "report.md", "report.html")


def write_reports(recommendation: "Recommendation", folder: Path) -> None:
    """Write every report file into `folder`, each whole or not at all."""
    from advisor.reports.html import html_report
    from advisor.reports.markdown import markdown_report
    from advisor.store import write_whole

    texts = (
        json.dumps(recommendation.as_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        markdown_report(recommendation),
        html_report(recommendation),
    )
    try:
        for name, text in zip(FILES, texts, strict=True):
            write_whole(folder / name, text)
    except OSError as error:
        raise RunError(
            f"The report cannot be written into '{folder}' ({error.strerror or error}). Finished measurements are in "
            "its journal: make room and run the same command again."
        ) from error
