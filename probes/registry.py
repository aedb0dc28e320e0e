"""Which probes there are. A new probe is one file with one decorated function.

In `SHIPPED` it is shipped, and predictors may be fitted on it; elsewhere it is the user's own: importing its file is
enough for it to be measured and shown.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.errors import UsageError, unknown_name
from probes.user_code import import_file, module_name

SHIPPED = {  # in the order in which they are measured
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

    @property
    def is_own(self) -> bool:
        """Whether it is the user's, and not shipped."""
        return self.name not in SHIPPED

    @property
    def key(self) -> str:
        """What a measurement is kept under: with the source of an own probe, so that a mended one is measured anew."""
        if not self.is_own:
            return self.name
        return (
            f"{self.name}@{hashlib.sha256(inspect.getsource(inspect.getmodule(self.measure)).encode()).hexdigest()[:8]}"
        )


_registered: dict[str, Probe] = {}


def probe(name: str, *, effort: str, columns: list[Column], cost: str, source: str) -> Callable:
    """Register the decorated function, which takes a `probes.measure.Measurement` and returns its columns, each (L,).

    Raises `UsageError` for an effort other than "static" or "probe", or the name of a shipped probe.
    """
    if effort not in EFFORTS[:2]:
        raise unknown_name("effort", effort, EFFORTS[:2], f"Give one of these to the probe '{name}'.")

    def register(function: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
        if SHIPPED.get(name, function.__module__) != function.__module__:
            raise UsageError(f"The name '{name}' is that of a shipped probe: give yours another.")
        _registered[name] = Probe(name, effort, tuple(columns), cost, source, function)
        return function

    return register


def get_probe(name: str) -> Probe:
    """The probe called `name`, or the one in a file of the user's own, ``FILE.py``.

    Raises `UsageError` with the nearest name for an unknown one.
    """
    if name.endswith(".py"):
        return _in_file(name)
    if name in SHIPPED:
        importlib.import_module(SHIPPED[name])
    if name not in _registered:
        raise unknown_name("probe", name, [*SHIPPED, *_own()], "'advisor probes' describes them; or give a FILE.py.")
    return _registered[name]


def list_probes(effort: str = EFFORTS[-1], shipped: bool = False) -> list[Probe]:
    """Every probe that runs at `effort` (each effort includes the cheaper ones), in order; `shipped` leaves out own."""
    allowed = EFFORTS[: EFFORTS.index(effort) + 1]
    return [p for p in map(get_probe, [*SHIPPED, *([] if shipped else _own())]) if p.effort in allowed]


def list_columns(effort: str = EFFORTS[-1]) -> dict[str, Column]:
    """Every column that `effort` can fill by shipped probes, by name: what predictors may know."""
    return {column.name: column for p in list_probes(effort, shipped=True) for column in p.columns}


def _own() -> list[str]:
    return [name for name in _registered if name not in SHIPPED]


def _in_file(file: str) -> Probe:
    earlier = module_name(Path(file).expanduser().resolve(), "Probe")
    for name in [name for name, p in _registered.items() if p.measure.__module__ == earlier]:
        del _registered[name]
    module = import_file(file, "Probe")
    found = [p for p in _registered.values() if p.measure.__module__ == module.__name__]
    if len(found) != 1:
        raise UsageError(f"'{file}' registers {len(found)} probes, not one: decorate one function with @probe(...).")
    return found[0]
