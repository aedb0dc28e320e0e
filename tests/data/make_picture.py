"""Makes the README's pictures from real runs, going on with the ones that the commands left here.

python tests/data/make_picture.py                # of advisor recommend smollm2-135m
python tests/data/make_picture.py race DIR       # of ... --effort warmup --budget 5m --validation 128
python tests/data/make_picture.py verify DIR     # of the verification of the recommendation in DIR
python tests/data/make_picture.py family         # of advisor report --published --n-layers 32
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import advisor
from advisor.cli.options import default_folder
from advisor.family import family_report
from advisor.reports.contributions import print_contributions
from advisor.reports.family_text import print_family
from advisor.reports.terminal import print_recommendation
from advisor.verification import folder_in, options_like, read_recommendation, task_of

HERE = Path(__file__).parent


def main() -> None:
    console = Console(width=104, record=True, force_terminal=True)
    if sys.argv[1:2] == ["verify"]:
        print_contributions(verification(sys.argv[2]), console)
        title = "advisor verify --from DIR --also 2,28 --steps 10 --seeds 2"
        save(console, title, "verify.svg")
    elif sys.argv[1:2] == ["family"]:
        print_family(family_report(families=["published"], advise=("a member", 32)), console)
        save(console, "advisor report --published --n-layers 32", "family.svg")
    elif sys.argv[1:2] == ["race"]:
        rules = advisor.RaceRules(rungs=(2, 4, 8), prompts=128, z=None)
        warmup = advisor.Warmup(advisor.Protocol(validation=128), rules=rules, budget=300)
        raced = {"effort": "warmup", "warmup": warmup, "output_dir": sys.argv[2]}
        print_recommendation(advisor.recommend("smollm2-135m", **raced), console)
        save(console, "advisor recommend smollm2-135m --effort warmup --budget 5m --validation 128", "race.svg")
    else:
        print_recommendation(advisor.recommend("smollm2-135m", output_dir=default_folder), console)
        save(console, "advisor recommend smollm2-135m", "recommend.svg")


def verification(folder: str) -> advisor.Contributions:
    """As README's command: --also 2,28 --steps 10 --seeds 2 --sampled-completions 2 --learning-rates 3e-5,3e-4."""
    found = read_recommendation(folder)
    options = options_like(found["protocol"], seeds=2, sampled_completions=2, learning_rates=(3e-5, 3e-4))
    protocol = replace(options.protocol, training=replace(options.protocol.training, steps=10))
    where = {"layer": found["pick"], "also": [2, 28], "output_dir": folder_in(folder)}
    return advisor.verify(
        found["model"]["name"], None, task_of(found), options=replace(options, protocol=protocol), **where
    )


def save(console: Console, title: str, name: str) -> None:
    svg = console.export_svg(title=f"$ {title}")
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)  # nothing is fetched from elsewhere
    (HERE / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
