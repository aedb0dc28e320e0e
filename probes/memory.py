"""Where finished work is kept between runs. The base class keeps nothing; `advisor.store` writes a journal."""

from typing import Any


class Memory:
    """Recalls what an earlier run with the same inputs has finished. Values are plain JSON."""

    def recall(self, kind: str, key: str) -> Any:
        """The value kept under (kind, key), or None."""
        return None

    def keep(self, kind: str, key: str, value: Any) -> None:
        """Store a finished value at once and for good."""
