"""A training run that broke down."""

from probes.errors import AdvisorError


class TrainingFailure(AdvisorError):
    """Training broke down at `step` (0-based): a typed result with its reason, never a score."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(
            f"Training broke down at step {step + 1}: {reason}. Use a lower learning rate, or more warm-up steps."
        )
        self.step, self.reason = step, reason
