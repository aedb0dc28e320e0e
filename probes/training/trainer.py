"""The trainer: GRPO on chosen layers of a policy, in place, with everything put back afterwards."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch

from probes.errors import NotFiniteError
from probes.layout import GroupBatch, Layout, choose_layout, shares_prompts, unshared_layout
from probes.policy import Policy
from probes.rollouts import Group, by_prompt, score_groups, seeded_generator
from probes.sampling import sample_completions
from probes.tasks.task import Row, Task
from probes.training.checkpointing import checkpointed
from probes.training.config import TrainingConfig
from probes.training.failure import TrainingFailure
from probes.training.in_place import TrainedInPlace
from probes.training.loss import clipped_gain, kl_from_base, normaliser, token_weights
from probes.training.optimizer import MasterAdamW, warmed_up

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
    completion as trainers do (None: share where exact and cheaper).
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
    ) -> None:
        super().__init__(policy, task, config, layers, rows)
        self.steps_done = 0
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
            self._open = opened.pop_all()
        return self

    def run(self, on_step: Callable[[StepRecord], None] = lambda record: None) -> list[StepRecord]:
        """All steps; `on_step` hears of each when it is done, the policy being the trained one so far."""
        records = []
        for _ in range(self.config.steps):
            records.append(self.step())
            on_step(records[-1])
        return records

    def step(self) -> StepRecord:
        """Sample a batch, score it, update. Raises `TrainingFailure` where numbers are no longer sound."""
        start = time.perf_counter()
        groups = self.rollouts()
        loss, norm = self.update(groups)
        rewards = np.concatenate([group.rewards for group in groups])
        lengths = [len(ids) for group in groups for ids in group.completion_ids]
        record = StepRecord(
            self.steps_done,
            float(np.nanmean(rewards)) if not np.isnan(rewards).all() else float("nan"),
            float(np.mean([not group.has_spread for group in groups])),
            float(np.mean(lengths)),
            loss,
            norm,
            time.perf_counter() - start,
        )
        self.steps_done += 1
        return record

    def rollouts(self) -> list[Group]:
        """The groups of the next step, sampled from the policy as it is now."""
        chosen = self._next_prompts()
        per_call = max(1, self.config.sampling_rows // self.config.group_size)
        generator = seeded_generator(self.policy, self.config.seed, self.steps_done)
        found = []
        for start in range(0, len(chosen), per_call):
            part = [self.prompts[i] for i in chosen[start : start + per_call]]
            try:
                found += sample_completions(
                    self.policy,
                    part,
                    self.config.group_size,
                    max_new_tokens=self.config.max_new_tokens,
                    temperature=self.config.temperature,
                    generator=generator,
                )
            except NotFiniteError as error:
                raise TrainingFailure(self.steps_done, "the policy's logits are no longer finite") from error
        ids = by_prompt(found, self.config.group_size)
        rows, prompts = [self.rows[i] for i in chosen], [self.prompts[i] for i in chosen]
        return score_groups(self.policy, self.task, rows, prompts, ids)

    def update(self, groups: Sequence[Group]) -> tuple[float, float]:
        """Train on one batch of groups; returns the last pass's loss and gradient norm before clipping."""
        config = self.config
        total, weights = normaliser(groups, config), token_weights(groups, config)
        used = [i for i, group in enumerate(groups) if config.kl or group.has_spread]
        batches = self._micro_batches([groups[i] for i in used], [weights[i] for i in used])
        old: list[torch.Tensor] = []
        rate = config.learning_rate * warmed_up(self.steps_done, config.warmup_steps)
        base = [self._base_log_probs(batch) for batch in batches] if config.kl else None
        for number in range(config.updates_per_batch):
            loss = 0.0
            for i, batch in enumerate(batches):
                with torch.enable_grad():
                    log_probs = batch.log_probs(self.policy.model(**batch.inputs).logits)
                    if number == 0:
                        old.append(log_probs.detach())
                    part = -clipped_gain(log_probs, old[i], batch.weights, config).sum()
                    if base is not None:
                        part = part + config.kl / total * kl_from_base(log_probs, base[i]).sum()
                loss += self._checked("the loss", float(part.detach()), EXPLODED)
                part.backward()
            norm = self._checked("the gradient norm", self._optimizer.step(rate))
        return loss, norm

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights as they are now, float32 copies on the CPU, by full parameter name."""
        masters = self._optimizer.masters
        return {n: m.detach().to("cpu", copy=True) for n, m in zip(self.trained, masters, strict=True)}

    def _next_prompts(self) -> list[int]:
        """Indices of the next step's prompts: every prompt once in an order of its own, then again in another."""
        n, first = self.config.prompts_per_step, self.steps_done * self.config.prompts_per_step
        order: dict[int, np.ndarray] = {}
        chosen = []
        for position in range(first, first + n):
            epoch, place = divmod(position, len(self.rows))
            if epoch not in order:
                order[epoch] = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.rows))
            chosen.append(int(order[epoch][place]))
        return chosen

    def _micro_batches(self, groups: list[Group], weights: list[np.ndarray]) -> list[GroupBatch]:
        """Groups in order, as many in a pass as `tokens_per_pass` allows, at least one."""
        if not groups:
            return []
        layout: Layout = choose_layout(self.policy, groups, exact=self._share) if self._share else unshared_layout
        batches, start, tokens = [], 0, 0
        for i, group in enumerate(groups):
            size = sum(map(len, group.completion_ids))
            if i > start and tokens + size > self.config.tokens_per_pass:
                batches.append(layout(self.policy, groups[start:i], weights[start:i], self.config.temperature))
                start, tokens = i, 0
            tokens += size
        return [*batches, layout(self.policy, groups[start:], weights[start:], self.config.temperature)]

    @torch.no_grad()
    def _base_log_probs(self, batch: GroupBatch) -> torch.Tensor:
        """Log-probabilities of the base policy, (N,): its weights stand in for the trained ones meanwhile."""
        trained = {name: p.detach().clone() for name, p in self.trained.items()}
        try:
            self._copy_in(self.base)
            return batch.log_probs(self.policy.model(**batch.inputs).logits)
        finally:
            self._copy_in(trained)

    def _checked(self, what: str, value: float, limit: float = float("inf")) -> float:
        if not isfinite(value):
            raise TrainingFailure(self.steps_done, f"{what} is not finite")
        if abs(value) > limit:
            raise TrainingFailure(self.steps_done, f"{what} exploded to {value:.3g}")
        return value
