"""How a pair is kept: one gzipped file of JSON lines, a line a run, and how it is read back."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from calibration.protocol import Protocol
from calibration.reliability import reliability
from calibration.runs import FULL, Run
from calibration.sweep import Sweep
from probes.errors import UsageError
from probes.table import LayerTable

SCHEMA_VERSION = 2
SMALL_POLICIES = Path(__file__).parent / "small_policies"
SAMPLES = "samples"  # how sampled scores of a pair may have been taken; or `calibration.race.EXPECTED`
_SUFFIX = ".jsonl.gz"
_PACKAGES = ("layer-advisor", "torch", "transformers", "numpy", "scikit-learn", "captum")
_PARTS = ("probes", "warmup", "others")


@dataclass(frozen=True, eq=False)  # so that what is computed of it can be cached
class Pair:
    """One policy on one task, as measured.

    ``head`` says what was measured: ``policy`` (with ``family``, and ``member``, which policies of one pre-training run
    share), ``task``, ``protocol``, ``packages``, and whether ``sampled_scores`` are "expected reward", or the means of
    "samples", which are noisier. ``probes`` and ``warmup`` are as `calibration.corpus.measuring` makes
    them, None for a pair without headroom, of which only full-parameter training is known. ``others`` holds what other
    tools say of the layers.
    """

    name: str
    head: dict[str, Any]
    base: dict[str, Any]
    runs: dict[str, dict[str, Any]]  # by `Run.key`
    probes: dict[str, Any] | None = None
    warmup: dict[str, Any] | None = None
    others: dict[str, Any] | None = None

    @property
    def family(self) -> str:
        return self.head["policy"]["family"]

    @property
    def member(self) -> str:
        """What counts as one policy: snapshots of one pre-training run are no independent evidence."""
        return self.head["policy"]["member"]

    @property
    def task(self) -> str:
        return self.head["task"]["name"]

    @property
    def n_layers(self) -> int:
        return self.head["policy"]["n_layers"]

    @property
    def is_whole(self) -> bool:
        """Whether every layer was measured."""
        return self.probes is not None and self.warmup is not None

    @cached_property
    def protocol(self) -> Protocol:
        return Protocol.from_dict(self.head["protocol"])

    @cached_property
    def table(self) -> LayerTable:
        """The layer table of effort "probe"; that of "static" is a part of it."""
        table = LayerTable(self.n_layers)
        table.add(self.probes["columns"])
        table.failures |= self.probes["failures"]
        return table

    def sweep(self, decoding: str) -> Sweep:
        """The sweep with rates chosen under `decoding`."""
        arms = [(k,) for k in range(self.n_layers)] + [None]
        return Sweep(replace(self.protocol, decoding=decoding), arms, self.base, self.runs)

    @property
    def layer_set_runs(self) -> list[dict[str, Any]]:
        """The runs of several layers at once."""
        return [run for run in self.runs.values() if run["layers"] and len(run["layers"]) > 1]


def save_pair(pair: Pair, folder: Path = SMALL_POLICIES) -> Path:
    """Write a pair's file whole."""
    lines = [{"kind": "pair", "schema_version": SCHEMA_VERSION, "name": pair.name, **pair.head}]
    lines.append({"kind": "base", **pair.base})
    lines += [{"kind": "run", **pair.runs[key]} for key in pair.runs]
    if pair.is_whole:
        lines.append({"kind": "reliability", **reliability(pair)})  # computed from the runs: read back from them too
    lines += [{"kind": kind, **found} for kind in _PARTS if (found := getattr(pair, kind)) is not None]
    text = "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{pair.name}{_SUFFIX}"
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(gzip.compress(text.encode(), mtime=0))
    partial.replace(file)
    return file


def load_pair(file: Path) -> Pair:
    """Read a pair. Raises `UsageError` for a file that is damaged or of another schema version."""
    try:
        lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
        kinds: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            kinds.setdefault(line.pop("kind"), []).append(line)
        head = kinds["pair"][0]
        version = head.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"'{file}' has schema version {version}, this program reads {SCHEMA_VERSION}: measure the pair again "
                "or use the program that wrote it."
            )
        runs = {Run(_layers(r), r["seed"], r["rate"]).key: r for r in kinds.get("run", [])}
        parts = {kind: kinds[kind][0] for kind in _PARTS if kind in kinds}
        return Pair(head.pop("name"), head, kinds["base"][0], runs, **parts)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise UsageError(f"'{file}' is not a pair of the corpus ({error}): remove it, or fetch it again.") from error


def load_corpus(folders: Iterable[Path] = (SMALL_POLICIES,)) -> list[Pair]:
    """Every pair in these folders, by name."""
    return sorted((load_pair(file) for folder in folders for file in pair_files(folder)), key=lambda pair: pair.name)


def chosen_on() -> set[str]:
    """Names of the sweeps that were looked at while the rules of warm-ups and features were chosen."""
    lines = (Path(__file__).parent / "chosen_on.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def pair_files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob(f"*{_SUFFIX}"))


def package_versions() -> dict[str, str]:
    """What measurements depend on."""
    return {name: metadata.version(name) for name in _PACKAGES}


def _layers(record: dict[str, Any]) -> tuple[int, ...] | None:
    return None if record["arm"] == FULL else tuple(record["layers"])
