"""What an exporter is given and what it gives; each framework's module has ``CHECKED_WITH``, ``ways`` and ``write``."""

from dataclasses import dataclass, field
from typing import Any

from advisor.exports.material import Material, jsonl
from advisor.exports.pick import Pick

FULL, LORA = "full", "lora"


@dataclass(frozen=True)
class Order:
    """One export: the layers, what is trained on, whether their weights or LoRA matrices of `rank` are trained."""

    pick: Pick
    material: Material
    way: str
    rank: int
    checked_with: str

    @property
    def header(self) -> str:
        """Comment lines for the top of a file."""
        return f"# {self.pick.says(self.way, self.rank)}\n# Checked with {self.checked_with}\n"

    @property
    def alpha(self) -> int:
        """LoRA's scale, as `advisor.freezing.lora_config` has it."""
        return 2 * self.rank

    @property
    def run_settings(self) -> dict[str, Any]:
        """Batch, length and rate of the run under the names of transformers' TrainingArguments."""
        m = self.material
        return {
            "per_device_train_batch_size": m.group_size,
            "gradient_accumulation_steps": m.prompts_per_step,
            "max_steps": m.steps,
            "learning_rate": m.rate,
            "lr_scheduler_type": "constant",
            "output_dir": "trained",
        }

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """How completions are drawn, under the names of TRL's GRPOConfig; no reference policy."""
        m = self.material
        names = {"num_generations": m.group_size, "max_completion_length": m.max_new_tokens}
        return {**names, "temperature": m.temperature, "beta": 0.0}

    def data_files(self) -> dict[str, str]:
        """The prompts and the reward as most targets take them; nothing where there are none."""
        if self.material.rows is None:
            return {}
        return {"train.jsonl": jsonl(self.material.rows), **self.material.reward_files}


@dataclass(frozen=True)
class Written:
    """``files`` by name, ``run`` the command that starts training (in the files' folder), ``notes`` for the user."""

    files: dict[str, str]
    run: str
    notes: list[str] = field(default_factory=list)
