"""The exceptions of this project: each message names the value, what is allowed, and what to do."""

import difflib
from collections.abc import Iterable


class AdvisorError(Exception):
    """Base of every expected failure; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(AdvisorError):
    """What was asked for cannot be done as asked: a wrong name, file, option or column."""

    exit_code = 2


class RunError(AdvisorError):
    """The run itself failed: a reward raised, a download broke, a measurement could not be taken."""


class NotFiniteError(RunError):
    """The policy's logits are not finite, so nothing can be sampled from it."""

    def __init__(self) -> None:
        super().__init__(
            "The policy's logits are not finite: its weights are broken, or its number format has too small a range. "
            "Check the checkpoint, or pass --dtype float32."
        )


class ProbeFailure(AdvisorError):
    """One probe cannot be measured here. Its reason is carried to the report; the other probes go on."""


def unknown_name(kind: str, name: str, known: Iterable[str], remedy: str) -> UsageError:
    """A `UsageError` for a name that is not registered, with the nearest spelling and the list."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"Unknown {kind} '{name}'.{hint} Available: {', '.join(known)}. {remedy}")
