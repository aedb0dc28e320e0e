"""How far a run is. The base class is silent; the command line draws it (`advisor.cli.progress`)."""

from collections.abc import Mapping


class Progress:
    """Told about a run as it goes; subclass it to show or log.

    A run first announces its stages with a forecast of their seconds (`plan`), then opens each
    with `begin` and counts it up with `advance`. Stages may be skipped or take other than forecast.
    """

    def plan(self, seconds: Mapping[str, float]) -> None:
        """Forecast seconds for each stage, in order."""

    def begin(self, stage: str, total: float) -> None:
        """A stage starts; it is done when `total` units are counted."""

    def advance(self, amount: float = 1.0) -> None:
        """`amount` more units of the stage are done."""

    def note(self, message: str) -> None:
        """A hint or a choice made on the way, in a line."""
