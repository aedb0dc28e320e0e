"""Measured profiles with a planted truth."""

import numpy as np

from calibration.profiles import Profile


def profile(member="m", values=(), n_layers=None, task="sums", family="f", **changes) -> Profile:
    """A profile from values by layer, or a whole one from a sequence."""
    values = values if isinstance(values, dict) else dict(enumerate(map(float, values)))
    fields = {"model": member, "member": member, "family": family, "task": task, "decoding": "greedy"}
    return Profile(**{**fields, "n_layers": n_layers or len(values), "values": values, **changes})


def peaked(member: str, n_layers: int, peak: float, rng: np.random.Generator, noise=0.05, **changes) -> Profile:
    """C is highest, about 1, at relative depth `peak`."""
    depth = np.arange(n_layers) / (n_layers - 1)
    return profile(member, 1 - 2 * (depth - peak) ** 2 + noise * rng.normal(size=n_layers), **changes)


def shuffled(member: str, n_layers: int, rng: np.random.Generator, **changes) -> Profile:
    """C has nothing to do with depth."""
    return profile(member, rng.normal(0.6, 0.3, size=n_layers), **changes)
