"""How long `advisor --help` takes, as a whole process, beside a bare Python start.

python tests/benchmarks/startup.py [--quick]
"""

import argparse
import sys

from measuring import last_line, run_measured, spread, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    n = 5 if parser.parse_args().quick else 21
    helps = [sys.executable, "-c", "import sys; sys.argv = ['advisor', '--help']; from advisor.cli import main; main()"]
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "advisor --help": helps}
    seconds = {name: [] for name in commands}
    for _ in range(n):
        for name, command in commands.items():
            seconds[name].append(run_measured(command).seconds)
    print(f"n = {n}; seconds, median (min to max)")
    for name, values in seconds.items():
        print(f"{name:16} {text(values)}")
    last_line("startup", n=n, seconds={name: spread(values) for name, values in seconds.items()})


if __name__ == "__main__":
    main()
