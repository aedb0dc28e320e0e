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

    texts = (
        json.dumps(recommendation.as_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        markdown_report(recommendation),
        html_report(recommendation),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, texts, strict=True):
            partial = folder / f".{name}.partial"
            partial.write_text(text, encoding="utf-8")
            partial.replace(folder / name)
    except OSError as error:
        raise RunError(
            f"The report cannot be written into '{folder}' ({error.strerror or error}). Finished measurements are in "
            "its journal: make room and run the same command again."
        ) from error
