"""Makes the README's picture from a real run, the one that `advisor recommend smollm2-135m` left here if there is one.

python tests/data/make_picture.py
"""

import re
from pathlib import Path

from rich.console import Console

import advisor
from advisor.cli.options import default_folder
from advisor.reports.terminal import print_recommendation

HERE = Path(__file__).parent


def main() -> None:
    console = Console(width=104, record=True, force_terminal=True)
    print_recommendation(advisor.recommend("smollm2-135m", output_dir=default_folder), console)
    svg = console.export_svg(title="$ advisor recommend smollm2-135m")
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)  # nothing is fetched from elsewhere
    (HERE / "recommend.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
