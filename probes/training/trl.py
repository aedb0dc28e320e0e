"""The same training run by TRL's GRPOTrainer (extra ``[trl]``), and so on whatever accelerate launches it on.

Under ``accelerate launch`` every process builds a `TRLTrainer` with the same arguments; DeepSpeed and FSDP come from
accelerate's configuration, vLLM from `options` (``{"use_vllm": True, ...}``, any field of TRL's GRPOConfig).
"""

import copy
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import numpy as np
import torch

from probes.errors import RunError, UsageError
from probes.policy import Policy
from probes.prompts import is_chat
from probes.tasks.rewards import completion_text, score
from probes.tasks.task import Row, Task
from probes.training.config import TrainingConfig
from probes.training.failure import TrainingFailure
from probes.training.in_place import TrainedInPlace
from probes.training.optimizer import warmed_up
from probes.training.trainer import EXPLODED, StepRecord

CHECKED_WITH = "trl 1.16.0"


class TRLTrainer(TrainedInPlace):
    """As `probes.training.Trainer`, for which it stands in; the policy takes the trained weights after `run`.

    TRL trains a copy of the model, so that the policy is left as found; trained weights are float32, a bfloat16 policy
    runs under autocast. Raises `UsageError` where TRL is not installed, refuses `options`, or the batch cannot be split
    over the processes. Cost: as TRL, which reads each prompt once per completion.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        config: TrainingConfig,
        *,
        layers: Sequence[int] | None = None,
        rows: Sequence[Row] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(policy, task, config, layers, rows)
        self.options = options or {}
        self._found: dict[str, torch.Tensor] = {}

    def __enter__(self) -> "TRLTrainer":
        with ExitStack() as opened:
            self._begin(opened)
            opened.callback(random.setstate, random.getstate())  # TRL seeds both for the whole process
            opened.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
            self._folder = opened.enter_context(tempfile.TemporaryDirectory())
            self.grpo, self._log = self._build()
            self._open = opened.pop_all()
        return self

    def run(self, on_step: Callable[[StepRecord], None] = lambda record: None) -> list[StepRecord]:
        """Train all steps; `on_step` hears of each when it is done. Raises `TrainingFailure` as the native engine."""
        self._log.on_step = on_step
        try:
            self.grpo.train()
        except RuntimeError as error:
            if "probability tensor" not in str(error):
                raise
            raise TrainingFailure(len(self._log.records), "the policy's logits are no longer finite") from error
        if len(self._log.records) != self.config.steps:
            raise RunError(
                f"TRL took {len(self._log.records)} of {self.config.steps} steps ({CHECKED_WITH} takes all)."
            )
        accelerator = self.grpo.accelerator
        state = accelerator.get_state_dict(self.grpo.model_wrapped)  # gathered, where it is sharded
        if accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            shared = [state and {name: state[name].cpu() for name in self.trained}]
            broadcast_object_list(shared)
            state = shared[0]
        self._found = {name: state[name].detach().float().cpu().clone() for name in self.trained}
        if not all(torch.isfinite(value).all() for value in self._found.values()):
            raise TrainingFailure(self.config.steps - 1, "the trained weights are not finite")
        self._copy_in(self._found)
        return self._log.records

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights, float32 on the CPU, by full parameter name."""
        return self._found

    def _build(self):
        try:
            import datasets
            from transformers import PrinterCallback, TrainerCallback
            from trl import GRPOConfig, GRPOTrainer
        except ImportError as error:
            raise UsageError(f"The engine 'trl' needs TRL: pip install 'layer-advisor[trl]' ({error}).") from error
        config, rows = self.config, self.rows
        model, tokenizer = copy.deepcopy(self.policy.model), copy.deepcopy(self.policy.tokenizer)
        named = dict(model.named_parameters())
        for name, parameter in named.items():
            parameter.requires_grad_(name in self.trained)
        half = self.policy.dtype == torch.bfloat16
        for name in self.trained:
            named[name].data = named[name].data.float()
        as_chat = config.prompt_style != "plain" and bool(getattr(tokenizer, "chat_template", None))
        if not as_chat and any(is_chat(row["prompt"]) for row in rows):
            raise UsageError(
                "The engine 'trl' takes chat messages only with a chat template: drop --prompt-style plain."
            )

        def reward(completions: list, completion_ids: list, index: list[int], **kwargs) -> list[float | None]:
            texts = [completion_text(completion) for completion in completions]
            found = score(self.task.reward, [rows[i] for i in index], texts, completion_ids)
            return [None if math.isnan(value) else value for value in found]

        def scheduler(trainer, num_training_steps: int, optimizer=None):
            updates = config.updates_per_batch
            trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or trainer.optimizer, lambda done: warmed_up(done // updates, config.warmup_steps)
            )
            trainer._created_lr_scheduler = True
            return trainer.lr_scheduler

        trainer_class = type("GRPOTrainer", (GRPOTrainer,), {"create_scheduler": scheduler})
        log = type("StepLog", (_StepLog, TrainerCallback), {})(config)
        saving = type("KeepFrozenFrozen", (_KeepFrozenFrozen, TrainerCallback), {})()
        reference = copy.deepcopy(self.policy.model).requires_grad_(False) if config.kl else None
        try:
            arguments = GRPOConfig(**self._arguments(half))
            # TRL would read the reference of the KL term from the files that the model came from, if any.
            with mock.patch("trl.trainer.grpo_trainer.create_model_from_path", return_value=reference):
                grpo = trainer_class(
                    model=model,
                    reward_funcs=reward,
                    args=arguments,
                    train_dataset=datasets.Dataset.from_list(
                        [{"prompt": _as_trl(rows[i]["prompt"], as_chat), "index": i} for i in self._indices()]
                    ),
                    processing_class=tokenizer,
                    callbacks=[saving, log],
                )
        except (TypeError, ValueError, ImportError) as error:
            raise UsageError(
                f"TRL refuses this run: {str(error).splitlines()[0]} (checked with {CHECKED_WITH})."
            ) from error
        grpo.remove_callback(PrinterCallback)  # it prints every log to stdout, which is for results
        return grpo, log

    def _indices(self) -> list[int]:
        """Every row, repeated to a whole step where there are fewer: TRL drops what does not fill one."""
        n = len(self.rows)
        return [i % n for i in range(max(n, self.config.prompts_per_step))]

    def _arguments(self, half: bool) -> dict[str, Any]:
        """Fields of GRPOConfig that say what `TrainingConfig` says."""
        from accelerate import PartialState

        config = self.config
        n_processes = PartialState().num_processes
        completions = config.prompts_per_step * config.group_size
        if completions % n_processes:
            raise UsageError(
                f"{config.prompts_per_step} prompts of {config.group_size} completions cannot be split evenly over "
                f"{n_processes} processes. Choose another --prompts-per-step."
            )
        share = completions // n_processes
        rows = max(1, config.tokens_per_pass // config.max_new_tokens)
        micro = next(size for size in range(min(share, rows), 0, -1) if share % size == 0)
        return {
            "output_dir": self._folder,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": share // micro,
            "max_steps": config.steps * config.updates_per_batch,
            "num_generations": config.group_size,
            "num_iterations": config.updates_per_batch,
            "max_completion_length": config.max_new_tokens,
            "temperature": config.temperature,
            "learning_rate": config.learning_rate,
            "weight_decay": config.weight_decay,
            "adam_beta1": config.adam_betas[0],
            "adam_beta2": config.adam_betas[1],
            "max_grad_norm": config.max_grad_norm,
            "epsilon": config.clip_low,
            "epsilon_high": config.clip_high,
            "beta": config.kl,
            "loss_type": "dapo" if config.algorithm == "grpo" else "dr_grpo",
            "scale_rewards": "group" if config.algorithm == "grpo" else "none",
            "seed": config.seed,
            "bf16": half,
            "use_cpu": self.policy.device.type == "cpu",
            "gradient_checkpointing": config.gradient_checkpointing,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "logging_steps": 1,
            "save_strategy": "no",
            "logging_nan_inf_filter": False,
            "disable_dropout": True,
            "report_to": "none",
            "disable_tqdm": True,
            **self.options,
        }


class _KeepFrozenFrozen:
    """Undoes what transformers does when checkpointing starts: it makes the embeddings ask for gradients, and then
    backward and recomputation run through every frozen layer below the trained one. TRL 1.16 switches checkpointing
    off and on again around every generation, so undoing it once is not enough."""

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        if args.gradient_checkpointing and hasattr(model, "disable_input_require_grads"):
            model.disable_input_require_grads()
            model.enable_input_require_grads = lambda: None

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        model.__dict__.pop("enable_input_require_grads", None)


class _StepLog:
    """Turns TRL's log into step records; a loss or gradient norm that is not sound ends the run.

    TRL logs rewards with the first update on a batch of completions only; the record is made with the last.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config, self.records, self.on_step = config, [], lambda record: None
        self._sampled: dict[str, Any] = {}

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" not in logs:
            return
        step = (state.global_step - 1) // self.config.updates_per_batch
        for name, limit in (("loss", EXPLODED), ("grad_norm", math.inf)):
            value = float(logs[name])
            if not math.isfinite(value):
                raise TrainingFailure(step, f"the {name.replace('_', ' ')} is not finite")
            if abs(value) > limit:
                raise TrainingFailure(step, f"the {name.replace('_', ' ')} exploded to {value:.3g}")
        if "reward" in logs:
            self._sampled = dict(logs)
        if state.global_step % self.config.updates_per_batch:
            return
        found = self._sampled
        record = StepRecord(
            step,
            math.nan if found["reward"] is None else float(found["reward"]),
            float(found["frac_reward_zero_std"]),
            float(found["completions/mean_length"]),
            float(logs["loss"]),
            float(logs["grad_norm"]),
            float(found["step_time"]),
        )
        self.records.append(record)
        self.on_step(record)


def _as_trl(prompt: Any, as_chat: bool) -> Any:
    """Text becomes a user message where the template is used, as `probes.prompts` does it."""
    return [{"role": "user", "content": prompt}] if as_chat and not is_chat(prompt) else prompt
