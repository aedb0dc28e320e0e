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


def reference_log_probs(grpo, inputs):
    """Of the base policy, as TRL computes them before an update."""
    with torch.no_grad():
        found = grpo._get_per_token_logps_and_entropies(
            grpo.ref_model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            inputs["completion_ids"].size(1),
        )
    return found[0]


@pytest.mark.parametrize("changes", [{}, {"algorithm": "dr_grpo"}, {"kl": 0.5}])
@pytest.mark.parametrize("layers", [None, [1]])
def test_the_same_batch_gives_the_same_gradient(tiny, sums, changes, layers, monkeypatch):
    policy = Policy.from_objects(make_model("Llama"), tiny.tokenizer)
    groups, settings = make_rollouts(6, 4).groups, config(**changes)
    with TRLTrainer(policy, sums, settings, layers=layers) as ours:
        model = ours.grpo.model.train()
        ours.grpo.current_gradient_accumulation_steps = 1
        inputs = as_trl_inputs(groups, settings)
        if settings.kl:
            inputs["ref_per_token_logps"] = reference_log_probs(ours.grpo, inputs)
        loss = ours.grpo._compute_loss(model, inputs)
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


def test_several_updates_a_batch_are_one_record_a_step(tiny, sums):
    settings = config(steps=3, updates_per_batch=2)
    with TRLTrainer(tiny, sums, settings, layers=[1]) as trainer:
        records = trainer.run()
        assert trainer.grpo.state.global_step == 6
    assert [record.step for record in records] == [0, 1, 2]


def test_fewer_prompts_than_a_step_takes_are_repeated(tiny, sums):
    with TRLTrainer(tiny, sums, config(), layers=[1], rows=sums.train[:3]) as trainer:
        assert len(trainer.run()) == 2


def test_the_reference_of_the_kl_term_is_the_policy_in_memory(own_tiny, sums):
    """Not what its name leads to on disk: at the first step the divergence from it is 0."""
    with torch.no_grad():
        own_tiny.model.model.norm.weight.mul_(1.7)
    with TRLTrainer(own_tiny, sums, config(steps=1, kl=0.1), layers=[1]) as trainer:
        trainer.run()
        logged = [entry["kl"] for entry in trainer.grpo.state.log_history if "kl" in entry]
    assert logged[0] == pytest.approx(0.0, abs=1e-6)


def test_random_states_are_put_back(tiny, sums):
    import random

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with TRLTrainer(tiny, sums, config(steps=1), layers=[1]) as trainer:
        trainer.run()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == expected  # noqa: NPY002


def test_bad_options_are_refused(tiny, sums):
    with pytest.raises(UsageError, match="TRL refuses this run.*no_such_field"):
        TRLTrainer(tiny, sums, config(), layers=[1], options={"no_such_field": 1}).__enter__()
