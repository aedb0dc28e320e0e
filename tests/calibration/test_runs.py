import json

import numpy as np
import pytest
from policies import model_state, task_with

from calibration.protocol import Protocol, split_task
from calibration.runs import Run, arm_name, perform, score_both
from probes.errors import RunError
from probes.scoring import score_policy
from probes.training import Trainer, TrainingConfig


def protocol(**changes) -> Protocol:
    training = TrainingConfig(steps=3, prompts_per_step=8, max_new_tokens=4)
    fields = {"training": training, "held_out": 40, "validation": 20, "sampled_completions": 2}
    return Protocol(**{**fields, **changes})


def test_names():
    assert [arm_name(a) for a in (None, (3,), (3, 4))] == ["full", "layer 3", "layers 3+4"]
    assert Run((3,), 1, 1e-4).key == "layer 3, seed 1, rate 0.0001"


def test_a_record_holds_both_decodings_of_the_trained_policy(tiny, sums, tmp_path):
    """Against training and scoring by hand; plain JSON; the policy is as found."""
    chosen, before = protocol(), model_state(tiny.model)
    split, run = split_task(sums, chosen), Run((3,), 1, 1e-3)
    record = perform(tiny, sums, split, chosen, run, save_to=tmp_path / "layer.safetensors")
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert model_state(tiny.model) == before
    with Trainer(tiny, sums, chosen.config(1, 1e-3), layers=[3], rows=split.train) as trainer:
        steps = trainer.run()
        for decoding in ("greedy", "sampled"):
            how = {"decoding": decoding, "max_new_tokens": 4, "samples": 2}
            expected = score_policy(tiny, sums, split.held_out, **how)
            assert record["held_out"][decoding] == expected.tolist()
            assert record["validation"][decoding] == pytest.approx(
                score_policy(tiny, sums, split.validation, **how).mean()
            )
    assert [step["reward"] for step in record["curve"]] == [step.reward for step in steps]
    assert record["failed"] is None
    assert record["trained_parameters"] == sum(p.numel() for p in tiny.stack.layers[3].parameters())
    assert record["peak_memory_bytes"] > 1e8
    assert (tmp_path / "layer.safetensors").exists()


def test_training_sees_neither_validation_nor_held_out_prompts(tiny, sums):
    seen = []

    def watching(prompts, completions, **kwargs):
        seen.append(set(prompts))
        return [float(i % 2) for i in range(len(completions))]

    task, chosen = task_with(sums, watching), protocol()
    split = split_task(task, chosen)
    perform(tiny, task, split, chosen, Run((3,), 0, 1e-3))
    held = {row["prompt"] for row in split.held_out} | {row["prompt"] for row in split.validation}
    assert not set.union(*seen[:3]) & held
    assert set.union(*seen[3:]) == held


def test_a_run_that_breaks_down_is_a_typed_result(tiny, sums):
    training = TrainingConfig(steps=3, prompts_per_step=8, max_new_tokens=4, updates_per_batch=8, kl=1.0)
    chosen, before = protocol(training=training), model_state(tiny.model)
    record = perform(tiny, sums, split_task(sums, chosen), chosen, Run(None, 0, 0.9))
    assert record["failed"].startswith("Training broke down at step")
    assert "held_out" not in record
    assert "validation" not in record
    assert model_state(tiny.model) == before


def test_a_reward_of_none_everywhere_cannot_choose_a_rate(tiny, sums):
    task = task_with(sums, lambda completions, **kwargs: [None] * len(completions))
    with pytest.raises(RunError, match="None on every validation prompt"):
        score_both(tiny, task, split_task(task, protocol()), protocol(), 4)


def test_the_mean_over_samples_leaves_unscored_ones_out(tiny, sums):
    task = task_with(sums, lambda completions, **kwargs: [None, 1.0] * (len(completions) // 2))
    found = score_policy(tiny, task, sums.held_out[:5], decoding="sampled", max_new_tokens=2, samples=4)
    assert np.array_equal(found, np.ones(5))
