"""JSON Schemas (draft 2020-12) of what ``--json`` prints and of the result files: one ``NAME.schema.json`` an output.

`schema` gives one as a dictionary that needs no other file. The files refer to each other and to ``parts.json`` by
name, as validators and editors resolve them within a folder. A new output needs one new file here and nothing else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
_ENDING = ".schema.json"


def names() -> list[str]:
    """The outputs that have a schema."""
    return sorted(file.name.removesuffix(_ENDING) for file in FOLDER.glob(f"*{_ENDING}"))


def schema(name: str) -> dict[str, Any]:
    """The schema called `name`, with those that it refers to in its ``$defs``, so that any validator takes it alone.

    Raises `UsageError` with the nearest name for an unknown one.
    """
    if name not in names():
        from probes.errors import unknown_name

        raise unknown_name("schema", name, names(), f"They are the files in {FOLDER}.")
    found = _read(name + _ENDING)
    inside: dict[str, Any] = {}
    waiting = sorted(_other_files(found))
    while waiting:
        file = waiting.pop()
        if file not in (name + _ENDING, *inside):
            inside[file] = _read(file)
            waiting += sorted(_other_files(inside[file]))
    return {**found, "$defs": {**found.get("$defs", {}), **inside}}


def _read(file: str) -> dict[str, Any]:
    return json.loads((FOLDER / file).read_text(encoding="utf-8"))


def _other_files(part: Any) -> Iterator[str]:
    """Files that a schema refers to; within its own file a reference begins with #."""
    if isinstance(part, dict):
        if "$ref" in part and not part["$ref"].startswith("#"):
            yield part["$ref"].partition("#")[0]
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from _other_files(value)
