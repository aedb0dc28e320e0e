"""Reinforcement learning of chosen layers: configuration, loss, optimiser, and the trainer, or TRL's in its place.

Many single-layer policies at once are trained by `joint`; `branch` says what they are and share, `branched_update` and
`branched_sampling` run them in one pass, `state` lets one of them go on alone.
"""

from probes.training.config import TrainingConfig
from probes.training.failure import TrainingFailure
from probes.training.trainer import StepRecord, Trainer

__all__ = ["StepRecord", "Trainer", "TrainingConfig", "TrainingFailure"]
