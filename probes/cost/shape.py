"""How large one RL step is: prompts, completions, lengths, and how many rows go through the model at once."""

from dataclasses import dataclass

from probes.errors import UsageError
from probes.training.config import TrainingConfig

TOKENS_PER_PASS = TrainingConfig.tokens_per_pass  # completion tokens of a micro-batch where nothing else is asked for
SAMPLING_ROWS = TrainingConfig.sampling_rows  # completions sampled at once


@dataclass(frozen=True)
class StepShape:
    """One step: ``prompts`` × ``group_size`` completions of ``max_new_tokens`` tokens each, after ``prompt_tokens``.

    Every completion is taken to be that long. ``rows_per_pass`` completions go through forward and backward at once
    (None: whole groups of about 512 completion tokens, as the advisor's trainer does); each is a row of its own with
    its prompt, as trainers lay them out.
    """

    prompts: int = 16
    group_size: int = 8
    prompt_tokens: int = 64
    max_new_tokens: int = 32
    rows_per_pass: int | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        sizes = ("prompts", "group_size", "prompt_tokens", "max_new_tokens", "rows_per_pass")
        for name in sizes:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"The {name.replace('_', ' ')} {value} is not allowed: it must be at least 1.")

    @property
    def rows(self) -> int:
        """Completions of a step."""
        return self.prompts * self.group_size

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt_tokens + self.max_new_tokens

    @property
    def pass_rows(self) -> int:
        """Rows of one forward and backward pass."""
        groups = max(1, TOKENS_PER_PASS // (self.group_size * self.max_new_tokens))
        return min(self.rows, self.rows_per_pass or groups * self.group_size)

    @property
    def passes(self) -> float:
        """Passes of a step; the last one may be a part of one."""
        return self.rows / self.pass_rows

    @property
    def prompts_at_once(self) -> int:
        """Prompts whose completions are sampled together."""
        return min(self.prompts, max(1, SAMPLING_ROWS // self.group_size))

    def check_fits(self, context_length: int | None) -> None:
        """Raise `UsageError` where a row is longer than the policy was built for."""
        if context_length is not None and self.length > context_length:
            raise UsageError(
                f"{self.prompt_tokens} prompt tokens and {self.max_new_tokens} new ones are {self.length}, but the "
                f"policy was built for {context_length}: make one of them smaller."
            )
