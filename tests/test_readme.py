"""The documentation names options, files and schemas that exist."""

import re
import shlex
from pathlib import Path

import pytest

from advisor import schemas
from advisor.cli import VERBS, cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in [ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")] if p.is_file())


def commands():
    """Every `advisor` command in a shell block of a page."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.split("<<")[0], comments=True)
                if "advisor" in words:
                    yield page.parent.name, words[words.index("advisor") + 1 :]


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda value: " ".join(value)[:60])
def test_commands_and_options_exist(page, words):
    assert words[0] in VERBS
    known = {option for parameter in cli.get_command(None, words[0]).params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known | {"--help", "--no-data", "--no-corpus"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_every_verb_and_schema_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"advisor {verb}" not in text and f"`{verb}`" not in text] == []
    assert [name for name in schemas.names() if f"`{name}`" not in text] == []
