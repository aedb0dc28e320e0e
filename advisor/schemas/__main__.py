"""`python -m advisor.schemas [NAME]`: the names of all schemas, or one of them, which then needs no other file."""

import json
import sys

from advisor.schemas import names, schema
from probes.errors import UsageError


def main(arguments: list[str]) -> str:
    """What is printed. Raises `UsageError` for an unknown name or more than one."""
    if len(arguments) > 1:
        raise UsageError(f"{len(arguments)} names were given: give one of {', '.join(names())}, or none to list them.")
    if not arguments:
        return "\n".join(f"{name:15}{schema(name)['description']}" for name in names())
    return json.dumps(schema(arguments[0]), indent=1, ensure_ascii=False)


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
