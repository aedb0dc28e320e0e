"""Reinforcement learning of chosen layers: configuration, loss, optimiser, the trainer, and TRL's in its place."""

from probes.training.config import TrainingConfig
from probes.training.failure import TrainingFailure
from probes.training.trainer import StepRecord, Trainer

__all__ = ["StepRecord", "Trainer", "TrainingConfig", "TrainingFailure"]
