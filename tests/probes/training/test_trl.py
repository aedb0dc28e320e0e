"""TRL in the engine's place, and the contract between the two: the same gradient on the same batch."""

import copy

import numpy as np
import pytest
import torch
from policies import make_model, make_rollouts, model_state, task_with

from probes.errors import RunError, UsageError
from probes.policy import Policy
from probes.training import Trainer, TrainingConfig
from probes.training.trl import TRLTrainer


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"steps": 2, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 4, **changes})


def as_trl_inputs(groups, settings):
    """What TRL's loss takes, built by hand: left-padded prompts, right-padded completions."""
    pairs = [(g, ids, a) for g in groups for ids, a in zip(g.completion_ids, g.advantages, strict=True)]
    if settings.algorithm == "dr_grpo":
        pairs = [
            (g, ids, r - g.rewards.mean()) for g in groups for ids, r in zip(g.completion_ids, g.rewards, strict=True)
        ]
    n_prompt, n_new = max(len(g.prompt_ids) for g, _, _ in pairs), max(len(ids) for _, ids, _ in pairs)
    left = [[0] * (n_prompt - len(g.prompt_ids)) + g.prompt_ids for g, _, _ in pairs]
    right = [ids + [0] * (n_new - len(ids)) for _, ids, _ in pairs]
    mask = torch.tensor([[1] * len(ids) + [0] * (n_new - len(ids)) for _, ids, _ in pairs])
    return {
        "prompt_ids": torch.tensor(left),
        "prompt_mask": torch.tensor(
            [[0] * (n_prompt - len(g.prompt_ids)) + [1] * len(g.prompt_ids) for g, _, _ in pairs]
        ),
        "completion_ids": torch.tensor(right),
        "completion_mask": mask,
        "advantages": torch.tensor([a for _, _, a in pairs], dtype=torch.float32),
        "num_items_in_batch": mask.sum(),
    }


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo"])
@pytest.mark.parametrize("layers", [None, [1]])
def test_the_same_batch_gives_the_same_gradient(tiny, sums, algorithm, layers, monkeypatch):
    policy = Policy.from_objects(make_model("Llama"), tiny.tokenizer)
    groups, settings = make_rollouts(6, 4).groups, config(algorithm=algorithm)
    with TRLTrainer(policy, sums, settings, layers=layers) as ours:
        model = ours.grpo.model.train()
        ours.grpo.current_gradient_accumulation_steps = 1
        loss = ours.grpo._compute_loss(model, as_trl_inputs(groups, settings))
        loss.backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    found = {}
    with Trainer(policy, sums, settings, layers=layers) as trainer:
        names, masters = list(trainer.trained), trainer._optimizer.masters
        monkeypatch.setattr(
            trainer._optimizer,
            "step",
            lambda rate: found.update(zip(names, [m.grad.clone() for m in masters], strict=True)) or 0.0,
        )
        own_loss, _ = trainer.update(groups)
    assert own_loss == pytest.approx(float(loss), abs=1e-6)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("layers", [None, [3]])
def test_it_trains_exactly_what_was_asked_for_and_puts_it_back(own_tiny, sums, layers):
    model = own_tiny.model.train()
    before, weights = model_state(model), copy.deepcopy(model.state_dict())
    heard = []
    with TRLTrainer(own_tiny, sums, config(learning_rate=1e-3), layers=layers) as trainer:
        records = trainer.run(heard.append)
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, weights[n])}
        expected = {n for n, _ in model.named_parameters() if layers is None or n.startswith("model.layers.3.")}
        assert changed == expected == set(trainer.weights())
    assert [record.step for record in records] == [0, 1]
    assert heard == records
    assert all(0 <= record.reward <= 1 and np.isfinite(record.grad_norm) for record in records)
    assert model_state(model) == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_bfloat16_policies_train_float32_weights(own_tiny, sums):
    own_tiny.model.to(torch.bfloat16)
    with TRLTrainer(own_tiny, sums, config(learning_rate=1e-6, warmup_steps=0), layers=[2]) as trainer:
        trainer.run()
        moved = [(w - trainer.base[name].float()).abs().max() for name, w in trainer.weights().items()]
    assert 0 < max(moved) < 1e-5


@pytest.mark.parametrize(("layer", "n_forward"), [(0, 12), (5, 7)])
def test_checkpointing_does_not_undo_the_saving(tiny, sums, layer, n_forward):
    """Layers that run forward with gradients in each of two steps: all 6, and again from the trained one up."""
    calls = []
    settings = config(steps=2, gradient_checkpointing=True, tokens_per_pass=1024)
    with TRLTrainer(tiny, sums, settings, layers=[layer]) as trainer:
        for module in trainer.grpo.model.model.layers:
            module.self_attn.register_forward_pre_hook(lambda *a: calls.append(torch.is_grad_enabled()))
        trainer.run()
    assert sum(calls) == 2 * n_forward


def test_a_reward_sees_the_task_as_with_the_native_engine(tiny, sums):
    """The same texts, columns and prompts; what it raises ends the run with the same sentence."""
    seen = []

    def watching(prompts, completions, answer, **kwargs):
        seen.append((prompts, completions, answer))
        return [float(len(text)) for text in completions]

    with TRLTrainer(tiny, task_with(sums, watching), config(steps=1), layers=[1]) as trainer:
        trainer.run()
    prompts, completions, answers = seen[0]
    assert all(p in {row["prompt"] for row in sums.train} for p in prompts)
    assert all(isinstance(text, str) and "<eos>" not in text for text in completions)
    assert [str(eval(p[:-1])) for p in prompts] == answers

    def broken(completions, **kwargs):
        raise ZeroDivisionError("by zero")

    with (
        TRLTrainer(tiny, task_with(sums, broken), config(), layers=[1]) as trainer,
        pytest.raises(RunError, match="by zero"),
    ):
        trainer.run()


def test_bad_options_are_refused(tiny, sums):
    with pytest.raises(UsageError, match="TRL refuses this run.*no_such_field"):
        TRLTrainer(tiny, sums, config(), layers=[1], options={"no_such_field": 1}).__enter__()
