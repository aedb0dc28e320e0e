"""The joint trainer: many single-layer policies at once, each exactly as `Trainer` would train it alone.

What is the same is computed once. The first step, in which all of them are still the base policy, costs one batch of
completions and one backward pass; during the base steps (`TrainingConfig.base_steps`) the completions are the base
policy's for all, and each begins its forward pass at its own layer; afterwards each samples for itself, in one batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from probes.errors import NotFiniteError
from probes.layout import GroupBatch, shares_prompts
from probes.noise import Noise
from probes.policy import Policy
from probes.preserve import left_as_found
from probes.prompts import encode_all
from probes.rollouts import Group, by_prompt, capped, score_groups
from probes.sampling import sample_completions
from probes.scoring import mean_rewards, scoring_noise
from probes.tasks.task import Row, Task
from probes.training.batches import micro_batches, prompts_of_step, sample_step, step_noise
from probes.training.branch import Branch, make_branches
from probes.training.branched_sampling import sample_branches
from probes.training.branched_update import base_pass, branch_log_probs
from probes.training.checkpointing import checkpointed
from probes.training.config import TrainingConfig
from probes.training.expected import expected_rewards
from probes.training.failure import TrainingFailure
from probes.training.loss import loss_part, normaliser
from probes.training.sharing import branches_share
from probes.training.state import TrainingState, in_order, setting_of
from probes.training.trainer import EXPLODED, StepRecord, checked, optimizer_step, step_record, update_policy

Arm = tuple[int, float]  # layer, learning rate

NOT_FINITE = "the policy's logits are no longer finite"
_ROWS_FACTOR = 8  # more rows are sampled at once than of one policy: those that follow the base policy's are cheap


class JointTrainer:
    """Trains `arms`, each a layer with a learning rate, on `task` by GRPO. Use as a context, like `Trainer`.

        with JointTrainer(policy, task, config, [(k, 1e-4) for k in range(policy.n_layers)]) as trainer:
            records = trainer.step()           # by arm
            base, scores = trainer.score(rows, decoding="greedy")
            trainer.drop([(0, 1e-4)])

    With the same configuration an arm gets the same random numbers as alone, and so the same weights, rewards and
    losses but for rounding. ``live`` are the arms in training; one whose numbers are no longer sound leaves it for
    ``failures``. The policy is left as found. `together` False trains one arm after another (None: only where the
    model's layers cannot be given rows of their own, see ``why_apart``). `on_arms` hears, while a step or a scoring
    runs, for how many arms (in parts) it has been done; a whole one adds up to the live arms.

    Memory beyond the policy: for each arm its layer's weights and `MasterAdamW`. Cost: see the module.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        config: TrainingConfig,
        arms: Sequence[Arm],
        *,
        rows: Sequence[Row] | None = None,
        share_prompts: bool | None = None,
        together: bool | None = None,
        on_arms: Callable[[float], None] = lambda arms: None,
    ) -> None:
        self.policy, self.task = policy, task
        self.rows = list(task.train if rows is None else rows)
        limit, texts = policy.context_length, [row["prompt"] for row in self.rows]
        self.prompts = encode_all(texts, policy.tokenizer, config.prompt_style, limit)
        room = capped(config.max_new_tokens, self.prompts, limit)
        self._asked = config
        self.config = replace(config, max_new_tokens=room)
        self.live: dict[Arm, Branch] = {}
        self.failures: dict[Arm, TrainingFailure] = {}
        self.curves: dict[Arm, list[dict]] = {}
        self.steps_done = 0
        self.why_apart = ""
        self._arms, self._share, self._together = sorted(set(arms)), share_prompts, together
        self._on_arms = on_arms
        self._open = ExitStack()

    def __enter__(self) -> "JointTrainer":
        with ExitStack() as opened:
            opened.enter_context(left_as_found(self.policy.model))
            self.policy.model.eval()
            for parameter in self.policy.model.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
            if self._share is None:
                self._share = shares_prompts(self.policy)
            if self._together is None:
                self.why_apart = branches_share(self.policy)
                self._together = not self.why_apart
            for branch in make_branches(self.policy, self._arms, self.config):
                self.live[branch.layer, branch.learning_rate] = branch
            opened.callback(lambda: self.drop(list(self.live)))
            self._open = opened.pop_all()
        return self

    def __exit__(self, *exc) -> None:
        self._open.close()

    def step(self) -> dict[Arm, StepRecord]:
        """One step of every live arm. ``seconds`` of a record are an equal share of the step's."""
        start = time.perf_counter()
        of_base = self.steps_done < max(1, self.config.base_steps)
        groups, found = (self._base_step if of_base else self._own_step)()
        seconds = (time.perf_counter() - start) / max(1, len(found))
        records = {arm: step_record(self.steps_done, groups[arm], *found[arm], seconds) for arm in found}
        self.steps_done += 1
        for arm, record in records.items():
            self.curves.setdefault(arm, []).append(asdict(record))
        return records

    def drop(self, arms: Sequence[Arm]) -> None:
        """Stop training `arms` and free their memory."""
        for arm in arms:
            self.live.pop(arm).optimizer.close()

    def state(self, arm: Arm) -> TrainingState:
        """What a live arm has reached, on the CPU: `Trainer` can go on from it alone."""
        branch = self.live[arm]
        return TrainingState(
            (branch.layer,),
            replace(self._asked, learning_rate=branch.learning_rate),
            setting_of(self.policy, self.task, self.rows),
            self.steps_done,
            branch.names,
            branch.optimizer.state(),
            list(self.curves[arm]),
        )

    def restore(self, states: Sequence[TrainingState]) -> None:
        """Go on from these states, all after as many steps; arms without one are dropped."""
        found = {(state.layers[0], state.config.learning_rate): state for state in states}
        self.drop([arm for arm in self.live if arm not in found])
        for arm, branch in self.live.items():
            self.steps_done = found[arm].steps_done
            updates = self.steps_done * self.config.updates_per_batch
            branch.optimizer.restore(in_order(found[arm], branch.names), updates)
            self.curves[arm] = list(found[arm].curve)

    def score(
        self,
        rows: Sequence[Row],
        *,
        decoding: str,
        samples: int = 1,
        seed: int = 0,
    ) -> tuple[np.ndarray, dict[Arm, np.ndarray]]:
        """Reward of each row's prompt, (n,), of the base policy and by live arm: as `probes.scoring.score_policy`.

        An arm whose logits are not finite moves to ``failures``. The policies share their random numbers.
        """
        config, limit = self.config, self.policy.context_length
        prompts = encode_all([row["prompt"] for row in rows], self.policy.tokenizer, config.prompt_style, limit)
        temperature = 0.0 if decoding == "greedy" else config.temperature
        samples = 1 if decoding == "greedy" else samples
        room, noise = capped(config.max_new_tokens, prompts, limit), scoring_noise(self.policy, seed)
        base, own = self._sample(prompts, samples, room, temperature, noise)
        rewards = lambda ids: mean_rewards(self.policy, self.task, rows, prompts, by_prompt(ids, samples))  # noqa: E731
        return rewards(base), {arm: rewards(ids) for arm, ids in own.items()}

    def expected(self, groups: Sequence[Group]) -> tuple[np.ndarray, dict[Arm, np.ndarray]]:
        """Expected reward of each group's prompt, (n,), of the base policy and by live arm, sampled as in training.

        See `probes.training.expected`; `groups` hold known completions with their rewards. An arm whose logits are not
        finite moves to ``failures``. Cost: for each arm a forward pass over the completions, from its layer upwards.
        """
        branches, temperature = list(self.live.values()), self.config.temperature
        if self._together:
            base, own = expected_rewards(self.policy, branches, groups, temperature, self._share)
        else:
            base, own = expected_rewards(self.policy, [], groups, temperature, self._share)
            for branch in branches:
                with branch.installed(self.policy):
                    own.append(expected_rewards(self.policy, [], groups, temperature, self._share)[0])
        self._on_arms(len(self.live))
        found = dict(zip(list(self.live), own, strict=True))
        for arm in [arm for arm, values in found.items() if not np.isfinite(values).all()]:
            self._fail(arm, TrainingFailure(self.steps_done, NOT_FINITE))
        return base, {arm: found[arm] for arm in self.live}

    def _base_step(self) -> tuple[dict[Arm, list[Group]], dict[Arm, tuple[float, float]]]:
        """A step on completions of the base policy: groups, and loss and gradient norm, by arm."""
        groups = sample_step(self.policy, self.task, self.rows, self.prompts, self.steps_done, self.config)
        total = normaliser(groups, self.config)
        batches = micro_batches(self.policy, groups, self.config, self._share)
        for number in range(self.config.updates_per_batch):
            losses = dict.fromkeys(self.live, 0.0)
            for batch in batches:
                if self.steps_done == number == 0:
                    self._first_gradients(batch, total, losses)
                    self._on_arms(len(self.live) / len(batches))
                else:
                    self._gradients(batch, total, losses, 1 / len(batches))
            norms = {}
            for arm, branch in list(self.live.items()):
                with self._failing(arm):
                    norms[arm] = optimizer_step(branch.optimizer, branch.config, self.steps_done)
        return dict.fromkeys(self.live, groups), {arm: (losses[arm], norms[arm]) for arm in self.live}

    def _first_gradients(self, batch: GroupBatch, total: float, losses: dict[Arm, float]) -> None:
        """Gradients while every arm is still the base policy: one backward pass gives them all."""
        layers = sorted({layer for layer, _ in self.live})
        parameters = {k: list(self.policy.stack.layers[k].parameters()) for k in layers}
        try:
            for k in layers:
                for parameter in parameters[k]:
                    parameter.requires_grad_(True)
            with torch.enable_grad(), self._saving_memory(layers[0]):
                log_probs = batch.log_probs(self.policy.model(**batch.inputs).logits)
                old = log_probs.detach()
                part = loss_part(log_probs, old, old, batch.weights, total, self.config)
                part.backward()
            for (layer, rate), branch in self.live.items():
                losses[layer, rate] += float(part.detach())
                branch.optimizer.add_gradients([p.grad for p in parameters[layer]])
        finally:
            for own in parameters.values():
                for parameter in own:
                    parameter.requires_grad_(False)
                    parameter.grad = None

    def _gradients(self, batch: GroupBatch, total: float, losses: dict[Arm, float], share: float) -> None:
        handed, base = base_pass(self.policy, batch, {layer for layer, _ in self.live})
        at_once = max(1, self.config.tokens_per_pass // len(batch.targets)) if self._together else 1
        arms = list(self.live)
        for start in range(0, len(arms), at_once):
            part = arms[start : start + at_once]
            gains = []
            with torch.enable_grad():
                for arm, log_probs in zip(part, self._log_probs(batch, handed, part), strict=True):
                    loss = loss_part(log_probs, base, base, batch.weights, total, self.config)
                    with self._failing(arm):
                        losses[arm] += checked(self.steps_done, "the loss", float(loss.detach()), EXPLODED)
                        gains.append(loss)
            if gains:
                torch.stack(gains).sum().backward()
            self._on_arms(len(part) * share)

    def _log_probs(self, batch: GroupBatch, handed: dict, arms: Sequence[Arm]) -> list[torch.Tensor]:
        branches = [self.live[arm] for arm in arms]
        if self._together:
            return branch_log_probs(self.policy, batch, handed, branches, self.config.gradient_checkpointing)
        with branches[0].installed(self.policy), self._saving_memory(branches[0].layer):
            return [batch.log_probs(self.policy.model(**batch.inputs).logits)]

    def _own_step(self) -> tuple[dict[Arm, list[Group]], dict[Arm, tuple[float, float]]]:
        """A step in which every arm samples for itself."""
        config, step = self.config, self.steps_done
        chosen = prompts_of_step(step, len(self.rows), config)
        rows, prompts = [self.rows[i] for i in chosen], [self.prompts[i] for i in chosen]
        noise = step_noise(self.policy, step, config)
        _, own = self._sample(prompts, config.group_size, config.max_new_tokens, config.temperature, noise, 0.5)
        groups, found = {}, {}
        for arm, ids in own.items():
            branch = self.live[arm]
            groups[arm] = score_groups(self.policy, self.task, rows, prompts, by_prompt(ids, config.group_size))
            batches = micro_batches(self.policy, groups[arm], config, self._share)
            base = [base_pass(self.policy, batch, ())[1] for batch in batches] if config.kl else None
            with self._failing(arm), branch.installed(self.policy), self._saving_memory(branch.layer):
                total = normaliser(groups[arm], config)
                found[arm] = update_policy(self.policy, batches, total, branch.config, step, branch.optimizer, base)
            self._on_arms(0.5)
        return groups, found

    def _sample(
        self,
        prompts: Sequence[list[int]],
        samples: int,
        max_new_tokens: int,
        temperature: float,
        noise: Noise,
        share: float = 1.0,
    ) -> tuple[list[list[int]], dict[Arm, list[list[int]]]]:
        """Completions of the base policy and by live arm, flat; arms that are no longer finite fail.

        `share` of what `on_arms` hears is counted here.
        """
        base: list[list[int]] = []
        own: dict[Arm, list[list[int]]] = {arm: [] for arm in self.live}
        n_policies = 1 + len(self.live) if self._together else 1
        at_once = max(1, _ROWS_FACTOR * self.config.sampling_rows // (samples * n_policies))
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "noise": noise}
        for start in range(0, len(prompts), at_once):
            part = prompts[start : start + at_once]
            arms = [arm for arm in own if arm in self.live]
            if self._together:
                branches = [self.live[arm] for arm in arms]
                of_base, found = sample_branches(self.policy, branches, part, samples, first_prompt=start, **settings)
            else:
                of_base = sample_completions(self.policy, part, samples, first_prompt=start, **settings)
                found = [self._sample_alone(arm, part, samples, start, settings) for arm in arms]
            self._on_arms(len(arms) * share * len(part) / len(prompts))
            base += of_base
            for arm, ids in zip(arms, found, strict=True):
                if ids is None:
                    self._fail(arm, TrainingFailure(self.steps_done, NOT_FINITE))
                else:
                    own[arm] += ids
        return base, {arm: ids for arm, ids in own.items() if arm in self.live}

    def _sample_alone(
        self, arm: Arm, prompts: Sequence[list[int]], samples: int, start: int, settings: dict[str, Any]
    ) -> list[list[int]] | None:
        with self.live[arm].installed(self.policy):
            try:
                return sample_completions(self.policy, prompts, samples, first_prompt=start, **settings)
            except NotFiniteError:
                return None

    def _saving_memory(self, lowest: int) -> AbstractContextManager[None]:
        """Gradient checkpointing from layer `lowest` on, if it was asked for."""
        return checkpointed(self.policy, lowest) if self.config.gradient_checkpointing else nullcontext()

    def _fail(self, arm: Arm, failure: TrainingFailure) -> None:
        self.failures[arm] = failure
        self.drop([arm])

    @contextmanager
    def _failing(self, arm: Arm) -> Iterator[None]:
        """Inside, a `TrainingFailure` ends this arm only."""
        try:
            yield
        except TrainingFailure as failure:
            self._fail(arm, failure)
