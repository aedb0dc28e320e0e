"""The hyper-parameters of one training run."""

from dataclasses import dataclass

from probes.errors import UsageError, unknown_name

ALGORITHMS = ("grpo", "dr_grpo")


@dataclass(frozen=True)
class TrainingConfig:
    """GRPO's hyper-parameters, named as the field names them.

    ``algorithm``: "grpo" is Shao et al. 2024 (arXiv 2402.03300) with the token-level loss of DAPO (arXiv 2503.14476):
    advantages (r - mean) / std, loss averaged over the completion tokens of a step. "dr_grpo" is Liu et al. 2025
    (arXiv 2503.20783): advantages r - mean, loss divided by completions times ``max_new_tokens``. Left out: sequence
    level ratios, entropy bonus, overlong filtering, replay. ``base_steps`` is as if one batch of rollouts were cut into
    that many steps, each with prompts of its own (PPO's mini-batches; TRL's ``steps_per_generation``): the ratio to the
    policy that sampled them, clipped, corrects for the steps taken since.
    """

    algorithm: str = "grpo"
    steps: int = 30
    prompts_per_step: int = 16
    group_size: int = 8  # completions of one prompt
    learning_rate: float = 1e-4
    warmup_steps: int = 2  # linear: the first step has 1/warmup of the rate
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    updates_per_batch: int = 1  # passes over one batch of rollouts; clipping only acts from the second on
    clip_low: float = 0.2
    clip_high: float = 0.2
    base_steps: int = 0  # so many first steps train on completions of the policy before training, weighted for that
    kl: float = 0.0  # weight of the divergence from the base policy
    temperature: float = 1.0
    max_new_tokens: int = 32
    prompt_style: str = "auto"
    seed: int = 0
    tokens_per_pass: int = 512  # completion tokens of a micro-batch: a bound on memory, not on the result
    sampling_rows: int = 256  # completions sampled at once: a bound on memory, not on the result
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise unknown_name("algorithm", self.algorithm, ALGORITHMS, "Pass one of these as --algorithm.")
        at_least_one = ("steps", "prompts_per_step", "updates_per_batch", "max_new_tokens", "tokens_per_pass")
        rules = {name: (getattr(self, name) >= 1, "at least 1") for name in (*at_least_one, "sampling_rows")}
        rules |= {
            "group_size": (self.group_size >= 2, "at least 2, since advantages compare completions of one prompt"),
            "learning_rate": (0 < self.learning_rate < 1, "above 0 and below 1"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "base_steps": (self.base_steps >= 0, "at least 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "adam_betas": (all(0 <= beta < 1 for beta in self.adam_betas), "from 0 to below 1"),
            "max_grad_norm": (self.max_grad_norm > 0, "above 0"),
            "clip_low": (0 < self.clip_low <= 1, "above 0 and at most 1"),
            "clip_high": (self.clip_high > 0, "above 0"),
            "kl": (self.kl >= 0, "at least 0"),
            "temperature": (self.temperature > 0, "above 0, since equal completions carry no signal"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UsageError(
                    f"The {name.replace('_', ' ')} {getattr(self, name)} is not allowed: it must be {rule}."
                )
