"""How contributions are measured: the protocol, and where and how long its runs are performed."""

from dataclasses import dataclass, field
from typing import Any

from advisor.processes import n_processes
from calibration.protocol import Protocol
from probes.errors import UsageError, unknown_name

REFERENCES = ("full", "none")


@dataclass(frozen=True)
class MeasuringOptions:
    """How contributions are measured, besides the protocol.

    ``max_new_tokens`` None is chosen from a first few completions. ``budget`` in seconds bounds the whole run by taking
    fewer steps than the protocol's. ``interval_width`` is the widest 90 % interval of a score (for rewards from 0 to 1)
    that the held-out prompts may give. With ``workers`` above 1 a pool of processes trains, with ``ray`` (an address,
    or "local") a Ray cluster. ``engine_options`` are fields of TRL's GRPOConfig.
    """

    protocol: Protocol = field(default_factory=Protocol)
    max_new_tokens: int | None = None
    reference: str = "full"
    budget: float | None = None
    interval_width: float = 0.3
    workers: int = 1
    ray: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    engine_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            raise unknown_name("reference", self.reference, REFERENCES, "Pass one of these as --reference.")
        if self.budget is not None and self.budget <= 0:
            raise UsageError(f"The budget {self.budget:g} s is not allowed: it must be above 0.")
        if not 0 < self.interval_width < 2:
            raise UsageError(f"The interval width {self.interval_width:g} is not allowed: it must be from 0 to 2.")
        if self.workers < 1:
            raise UsageError(f"{self.workers} workers are not allowed: there must be at least 1.")
        if self.engine_options and self.protocol.engine != "trl":
            raise UsageError("Options for TRL need --engine trl.")
        if self.protocol.engine == "trl" and self.in_workers:
            raise UsageError("The engine 'trl' trains in one place: start it with accelerate launch, without workers.")
        if n_processes() > 1 and self.protocol.engine != "trl":
            raise UsageError("Several processes train together only with --engine trl.")

    @property
    def in_workers(self) -> bool:
        return self.workers > 1 or self.ray is not None
