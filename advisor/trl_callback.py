"""TRL's trainers on the recommended layer: one callback that freezes the rest before the optimiser is made."""

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from advisor.freezing import Frozen
    from advisor.recommendation import Recommendation


class TRLCallback(TrainerCallback):
    """``GRPOTrainer(model, ..., callbacks=[advisor.TRLCallback(rec)])`` trains exactly the pick of `rec`.

    Freezes when the trainer is built, keeps gradient checkpointing from undoing the saving, and puts requires_grad back
    when training ends; after an interrupt call ``frozen.undo()``. ``frozen`` says what is trained. Raises `UsageError`
    as `Recommendation.freeze`. Not for a trainer with a ``peft_config``: give that ``rec.lora_config()`` instead.
    Checked with trl 1.16.0.
    """

    def __init__(self, recommendation: "Recommendation") -> None:
        self.recommendation = recommendation
        self.frozen: Frozen | None = None

    def on_init_end(self, args, state, control, model: Any = None, **kwargs) -> None:
        self.frozen = self.recommendation.freeze(model)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.frozen.undo()
