"""Which probes there are. A new probe is one file with one decorated function, and one line in `_PROBES`."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probes.errors import unknown_name

_PROBES = {  # in the order in which they are measured
    "depth": "probes.depth",
    "weights": "probes.weights",
    "activations": "probes.activations",
    "gradients": "probes.gradients",
    "attribution": "probes.attribution",
}
EFFORTS = ("static", "probe", "warmup")
DECODINGS = ("greedy", "sampled")


@dataclass(frozen=True)
class Column:
    """One number a layer. What it says of contributions is for a predictor to learn (`calibration.predictor`)."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Probe:
    """A measurement that fills one or more columns of the layer table."""

    name: str
    effort: str
    columns: tuple[Column, ...]
    cost: str
    source: str
    measure: Callable[..., dict[str, np.ndarray]]


_registered: dict[str, Probe] = {}


def probe(name: str, *, effort: str, columns: list[Column], cost: str, source: str) -> Callable:
    """Register the decorated function, which takes a `probes.measure.Measurement` and returns its columns."""

    def register(function: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
        _registered[name] = Probe(name, effort, tuple(columns), cost, source, function)
        return function

    return register


def get_probe(name: str) -> Probe:
    """The probe called `name`; raises `UsageError` with the nearest name for an unknown one."""
    if name not in _PROBES:
        raise unknown_name("probe", name, _PROBES, "'advisor probes' describes them.")
    importlib.import_module(_PROBES[name])
    return _registered[name]


def list_probes(effort: str = EFFORTS[-1]) -> list[Probe]:
    """Every probe that runs at `effort` (each effort includes the cheaper ones), in order."""
    allowed = EFFORTS[: EFFORTS.index(effort) + 1]
    return [p for p in map(get_probe, _PROBES) if p.effort in allowed]


def list_columns(effort: str = EFFORTS[-1]) -> dict[str, Column]:
    """Every column that `effort` can fill, by name."""
    return {column.name: column for p in list_probes(effort) for column in p.columns}
