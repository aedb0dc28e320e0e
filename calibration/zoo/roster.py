"""Which policies the zoo has: every family, 4 to 16 layers, several widths and seeds."""

from calibration.zoo.pretraining import Member

# Pre-training goes on for so many steps at most: skills that take longer are worth the time on a few members only.
_STEPS, _LONG = 1000, 2400

ROSTER: dict[Member, int] = {
    Member("llama", 8, 64, 0): _LONG,
    Member("gpt_neox", 8, 64, 0): _LONG,
    Member("gpt2", 8, 64, 0): _STEPS,
    Member("phi", 8, 64, 0): _STEPS,
    Member("qwen2", 8, 64, 0): _STEPS,
    Member("qwen3", 12, 64, 0): _STEPS,
    Member("mistral", 6, 96, 0): _STEPS,
    Member("gemma2", 6, 64, 0): _STEPS,
    Member("olmo2", 10, 64, 0): _STEPS,
    Member("llama", 12, 64, 1): _STEPS,
    Member("phi", 6, 96, 1): _STEPS,
    Member("qwen3", 4, 96, 1): _STEPS,
    Member("gpt_neox", 16, 48, 1): _STEPS,
    Member("mistral", 10, 64, 1): _STEPS,
    Member("qwen2", 12, 48, 1): _STEPS,
    Member("olmo2", 6, 96, 1): _STEPS,
    Member("gpt2", 6, 96, 1): _STEPS,
    Member("gemma2", 10, 64, 1): _STEPS,
}
"""Members and their most pre-training steps."""
