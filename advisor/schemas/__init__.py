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
    """The schema called `name`, with the files that it refers to in its ``$defs``: any validator takes it alone.

    Raises `UsageError` with the nearest name for an unknown one.
    """
    if name not in names():
        from probes.errors import unknown_name

        raise unknown_name("schema", name, names(), f"They are the files in {FOLDER}.")
    own, inside, waiting = name + _ENDING, {}, [name + _ENDING]
    while waiting:
        file = waiting.pop()
        inside[file] = _read(file)
        waiting += {other for other in map(_file_of, _references(inside[file])) if other} - set(inside)
    for file, content in inside.items():
        for part in _references(content):
            other, _, way = part["$ref"].partition("#")
            other = other or file
            part["$ref"] = "#" + ("" if other == own else f"/$defs/{other}") + way
    found = inside.pop(own)
    defs = {file: {key: part for key, part in content.items() if key != "$id"} for file, content in inside.items()}
    return {**found, "$defs": {**found.get("$defs", {}), **defs}}


def _read(file: str) -> dict[str, Any]:
    return json.loads((FOLDER / file).read_text(encoding="utf-8"))


def _references(part: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that refers to another."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from _references(value)


def _file_of(reference: dict[str, Any]) -> str:
    """The file that is referred to; empty for a reference within its own."""
    return reference["$ref"].partition("#")[0]
