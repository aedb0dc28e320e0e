"""The output folder of a run: what it is a run of, a journal of finished work, and the results.

`config.json` says what the run is of; a folder that holds another run is refused. `journal.jsonl` gets one line for
each finished measurement, at once and for good, so that the same command goes on where it was stopped.
"""

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advisor.environment import environment
from probes.errors import RunError, UsageError
from probes.memory import Memory

SCHEMA_VERSION = 1
_MEASURED = ("run", "probe")  # journal entries that a wrong option must not lose


class RunFolder(Memory):
    """An output folder, opened for one run. `identity` is plain JSON that tells this run from others."""

    def __init__(self, path: str | Path, identity: dict[str, Any]) -> None:
        self.path = Path(path).expanduser()
        self.identity = json.loads(json.dumps(identity))
        self._entries: dict[tuple[str, str], Any] = {}
        self._lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_ours()
            self._lock.acquire()
            self._open()
        except Timeout as error:
            raise UsageError(
                f"Another process is working in the output folder '{self.path}'. Wait until it is done, or give "
                "another with --output-dir."
            ) from error
        except OSError as error:
            raise UsageError(
                f"The output folder '{self.path}' cannot be written ({error.strerror or error}). "
                "Give another with --output-dir."
            ) from error

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left finished work here."""
        return bool(self._entries)

    def recall(self, kind: str, key: str) -> Any:
        return self._entries.get((kind, key))

    def keep(self, kind: str, key: str, value: Any) -> None:
        line = json.dumps({"kind": kind, "key": key, "value": value}, allow_nan=False).encode() + b"\n"
        end = self._journal.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):  # a full disk takes a part first
                written += self._journal.write(line[written:])
            os.fsync(self._journal.fileno())
        except OSError as error:
            self._journal.truncate(end)
            raise RunError(
                f"The journal in '{self.path}' cannot be written ({error.strerror or error}). What was finished before "
                "is kept: make room and run the same command again."
            ) from error
        self._entries[kind, key] = value

    def write(self, name: str, text: str) -> None:
        """Write a result file whole or not at all."""
        write_whole(self.path / name, text)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, _json(value))

    def close(self) -> None:
        """Let other processes use the folder; the kernel does so for a process that is killed."""
        self._journal.close()
        self._lock.release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, *exc) -> None:
        measured = any(what in _MEASURED for what, _ in self._entries)
        if kind is not None and issubclass(kind, UsageError) and not measured:
            for name in ("config.json", "journal.jsonl", "environment.json"):  # so that better options find it free
                (self.path / name).unlink(missing_ok=True)
        self.close()

    def _open(self) -> None:
        try:
            self._check_identity()
            self._read_journal()
            # Unbuffered: what could not be written must not be written later.
            self._journal = (self.path / "journal.jsonl").open("ab", buffering=0)
            self.write("environment.json", _json({"schema_version": SCHEMA_VERSION, **environment()}))
        except BaseException:
            self._lock.release()
            raise

    def _check_ours(self) -> None:
        """Leave folders alone that are not empty and hold no run."""
        _refuse_others(self.path)

    def _check_identity(self) -> None:
        file = self.path / "config.json"
        if not file.exists():
            self.write("config.json", _json({"schema_version": SCHEMA_VERSION, **self.identity}))
            return
        _refuse_another_run(self.path, self.identity)

    def _read_journal(self) -> None:
        file = self.path / "journal.jsonl"
        if not file.exists():
            return
        raw = file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) != len(raw):  # a line half written when the run was killed
            with file.open("r+b") as stream:
                stream.truncate(len(whole))
        for i, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._entries[entry["kind"], entry["key"]] = entry["value"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise UsageError(
                    f"'{file}', line {i} is damaged. Remove that line, or give another folder with --output-dir."
                ) from error


def finished_in(path: Path, identity: dict[str, Any] | None = None) -> int:
    """How many finished measurements a run has left in `path`, without opening it; 0 where there is no run.

    Raises `UsageError` where `RunFolder` would, since the run there has another `identity`, or there is something else.
    """
    path = path.expanduser()
    if identity is not None and path.is_dir():
        _refuse_others(path)
        if (path / "config.json").exists():
            _refuse_another_run(path, json.loads(json.dumps(identity)))
    journal = path / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def _refuse_others(path: Path) -> None:
    """Raise `UsageError` for a folder that is not empty and holds no run."""
    others = [p.name for p in path.iterdir() if p.name != ".lock" and not p.name.endswith(".partial")]
    if others and "config.json" not in others:
        raise UsageError(
            f"The output folder '{path}' is not empty ({', '.join(sorted(others)[:3])}, …) and holds no "
            "run of the advisor. Give an empty or new folder with --output-dir."
        )


def _refuse_another_run(path: Path, identity: dict[str, Any]) -> None:
    """Raise `UsageError` where the folder's ``config.json`` is of a run with another identity."""
    file = path / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"'{file}' is not readable JSON. Give another folder with --output-dir.") from error
    found.pop("schema_version", None)
    differing = [k for k in {**found, **identity} if found.get(k) != identity.get(k)]
    if differing:
        k = differing[0]
        raise UsageError(
            f"The output folder '{path}' holds another run: its {k} is {_short(found.get(k))}, this one's is "
            f"{_short(identity.get(k))}. Give another folder with --output-dir."
        )


def write_whole(file: Path, text: str) -> None:
    """Write a file whole or not at all, making its folder if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
