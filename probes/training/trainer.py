"""The trainer: GRPO on chosen layers of a policy, in place, with everything put back afterwards."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch

from probes.errors import NotFiniteError
from probes.layout import GroupBatch, shares_prompts
from probes.policy import Policy
from probes.rollouts import Group
from probes.tasks.task import Row, Task
from probes.training.batches import micro_batches, sample_step
from probes.training.checkpointing import checkpointed
from probes.training.config import TrainingConfig
from probes.training.failure import TrainingFailure
from probes.training.in_place import TrainedInPlace
from probes.training.loss import loss_part, normaliser
from probes.training.optimizer import MasterAdamW, warmed_up
from probes.training.state import TrainingState, in_order

EXPLODED = 1e3  # a sound loss is at most sqrt(group size) away from 0, plus the KL term


@dataclass(frozen=True)
class StepRecord:
    """One step of training: mean reward of its completions, and what the update saw."""

    step: int
    reward: float
    share_without_spread: float
    completion_tokens: float  # mean of a completion
    loss: float
    grad_norm: float  # before clipping
    seconds: float


class Trainer(TrainedInPlace):
    """Trains layers of `policy` on `task` by GRPO. Use as a context: the policy is left as found on leaving.

        with Trainer(policy, task, config, layers=[17]) as trainer:
            records = trainer.run()          # or step by step
            weights = trainer.weights()      # float32, by full parameter name

    `layers` None trains every parameter, embeddings, head and final norm included; else exactly the parameters of those
    layers. Inside, the policy is the trained one and may be scored at any time. Dropout is off throughout. The same
    configuration gives the same numbers on the same machine with the same number of threads.

    Cost of a step: sampling; one forward; backward from the top to the lowest trained layer. Memory beyond the policy:
    see `MasterAdamW`, and a copy of the trained weights to put back. `share_prompts` False lays out one row a
    completion as trainers do (None: share where exact and cheaper). `start` goes on from a state that an earlier run
    of the same configuration reached.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        config: TrainingConfig,
        *,
        layers: Sequence[int] | None = None,
        rows: Sequence[Row] | None = None,
        share_prompts: bool | None = None,
        start: TrainingState | None = None,
    ) -> None:
        super().__init__(policy, task, config, layers, rows)
        self.steps_done = 0
        self._start = start
        self._share = share_prompts

    def __enter__(self) -> "Trainer":
        with ExitStack() as opened:
            self._begin(opened)
            if self._share is None:
                self._share = shares_prompts(self.policy)
            for parameter in self.policy.model.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None  # the caller's own, put back on leaving, must not join the first update
            for parameter in self.trained.values():
                parameter.requires_grad_(True)
            if self.config.gradient_checkpointing:
                opened.enter_context(checkpointed(self.policy, min(self.layers or [0])))
            self._optimizer = MasterAdamW(self.trained.values(), self.config)
            opened.callback(self._optimizer.close)
            if self._start is not None:
                self.steps_done = self._start.steps_done
                updates = self.steps_done * self.config.updates_per_batch
                self._optimizer.restore(in_order(self._start, list(self.trained)), updates)
            self._open = opened.pop_all()
        return self

    def run(self, on_step: Callable[[StepRecord], None] = lambda record: None) -> list[StepRecord]:
        """All steps left; `on_step` hears of each when it is done, the policy being the trained one so far."""
        records = []
        while self.steps_done < self.config.steps:
            records.append(self.step())
            on_step(records[-1])
        return records

    def step(self) -> StepRecord:
        """Sample a batch, score it, update. Raises `TrainingFailure` where numbers are no longer sound."""
        start = time.perf_counter()
        groups = self.rollouts()
        loss, norm = self.update(groups)
        record = step_record(self.steps_done, groups, loss, norm, time.perf_counter() - start)
        self.steps_done += 1
        return record

    def rollouts(self) -> list[Group]:
        """The groups of the next step, sampled from the policy as it is now, or as it was during the base steps."""
        try:
            with self._as_base() if 0 < self.steps_done < self.config.base_steps else nullcontext():
                return sample_step(self.policy, self.task, self.rows, self.prompts, self.steps_done, self.config)
        except NotFiniteError as error:
            raise TrainingFailure(self.steps_done, "the policy's logits are no longer finite") from error

    def update(self, groups: Sequence[Group]) -> tuple[float, float]:
        """Train on one batch of groups; returns the last pass's loss and gradient norm before clipping."""
        config, total = self.config, normaliser(groups, self.config)
        batches = micro_batches(self.policy, groups, config, self._share)
        needs_base = config.kl or 0 < self.steps_done < config.base_steps
        base = [self._base_log_probs(batch) for batch in batches] if needs_base else None
        return update_policy(self.policy, batches, total, config, self.steps_done, self._optimizer, base)

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights as they are now, float32 copies on the CPU, by full parameter name."""
        masters = self._optimizer.masters
        return {n: m.detach().to("cpu", copy=True) for n, m in zip(self.trained, masters, strict=True)}

    @contextmanager
    def _as_base(self) -> Iterator[None]:
        """Inside, the weights are those before training."""
        trained = {name: p.detach().clone() for name, p in self.trained.items()}
        try:
            self._copy_in(self.base)
            yield
        finally:
            self._copy_in(trained)

    @torch.no_grad()
    def _base_log_probs(self, batch: GroupBatch) -> torch.Tensor:
        """Log-probabilities of the base policy, (N,): its weights stand in for the trained ones meanwhile."""
        with self._as_base():
            return batch.log_probs(self.policy.model(**batch.inputs).logits)


def update_policy(
    policy: Policy,
    batches: Sequence[GroupBatch],
    total: float,
    config: TrainingConfig,
    step: int,
    optimizer: MasterAdamW,
    base: Sequence[torch.Tensor] | None,
) -> tuple[float, float]:
    """One step of what `optimizer` trains in `policy` on `batches`; returns the last pass's loss and gradient norm.

    `total` is the step's `normaliser`; `base` are the base policy's log-probabilities, (N,) for each batch, which base
    steps and a KL term need. Raises `TrainingFailure`.
    """
    old = list(base) if 0 < step < config.base_steps else []
    for _ in range(config.updates_per_batch):
        loss = 0.0
        for i, batch in enumerate(batches):
            with torch.enable_grad():
                log_probs = batch.log_probs(policy.model(**batch.inputs).logits)
                if i == len(old):
                    old.append(log_probs.detach())
                part = loss_part(log_probs, old[i], base and base[i], batch.weights, total, config)
            loss += checked(step, "the loss", float(part.detach()), EXPLODED)
            part.backward()
        norm = optimizer_step(optimizer, config, step)
    return loss, norm


def optimizer_step(optimizer: MasterAdamW, config: TrainingConfig, step: int) -> float:
    """Take the gathered gradients at the rate of this step; returns their norm before clipping."""
    rate = config.learning_rate * warmed_up(step, config.warmup_steps)
    return checked(step, "the gradient norm", optimizer.step(rate))


def step_record(step: int, groups: Sequence[Group], loss: float, norm: float, seconds: float) -> StepRecord:
    """What is kept of a step that trained on `groups`."""
    rewards = np.concatenate([group.rewards for group in groups])
    lengths = [len(ids) for group in groups for ids in group.completion_ids]
    return StepRecord(
        step,
        float(np.nanmean(rewards)) if not np.isnan(rewards).all() else float("nan"),
        float(np.mean([not group.has_spread for group in groups])),
        float(np.mean(lengths)),
        loss,
        norm,
        seconds,
    )


def checked(step: int, what: str, value: float, limit: float = float("inf")) -> float:
    """`value` where it is sound, else `TrainingFailure`."""
    if not isfinite(value):
        raise TrainingFailure(step, f"{what} is not finite")
    if abs(value) > limit:
        raise TrainingFailure(step, f"{what} exploded to {value:.3g}")
    return value
