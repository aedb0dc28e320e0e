"""Many branches trained at once against each trained alone."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from policies import make_model, model_state, task_with

from probes.policy import Policy
from probes.scoring import score_policy
from probes.training import Trainer, TrainingConfig
from probes.training.joint import JointTrainer
from probes.training.sharing import branches_share
from probes.training.state import TrainingState, setting_of

ARMS = [(0, 1e-3), (1, 3e-3), (1, 1e-3), (2, 1e-3)]
APART = {"Bloom"}  # its attention bias has no row a completion


def evens(completion_ids, **kwargs):
    """A reward that untrained policies get now and then: the share of even tokens."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def config(**changes) -> TrainingConfig:
    return TrainingConfig(
        **{"steps": 3, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 5, "warmup_steps": 2, **changes}
    )


def alone(policy, task, settings, arm):
    layer, rate = arm
    settings = TrainingConfig(**{**vars(settings), "learning_rate": rate})
    with Trainer(policy, task, settings, layers=[layer]) as trainer:
        records = trainer.run()
        scores = score_policy(policy, task, task.held_out[:8], decoding="greedy", max_new_tokens=5)
        return trainer.weights(), records, scores


def agrees(policy, task, settings, arms=ARMS, **options):
    with JointTrainer(policy, task, settings, arms, **options) as trainer:
        records = [trainer.step() for _ in range(settings.steps)]
        base, scores = trainer.score(task.held_out[:8], decoding="greedy")
        weights = {arm: branch.weights() for arm, branch in trainer.live.items()}
    assert (base == score_policy(policy, task, task.held_out[:8], decoding="greedy", max_new_tokens=5)).all()
    for arm in arms:
        expected, curve, expected_scores = alone(policy, task, settings, arm)
        assert list(weights[arm]) == list(expected)
        start = dict(policy.model.named_parameters())
        for name, value in expected.items():
            moved = (value - start[name]).abs().max()
            assert (weights[arm][name] - value).abs().max() <= 2e-2 * moved + 1e-6, (arm, name)
        for joint, own in zip(records, curve, strict=True):
            assert joint[arm].reward == pytest.approx(own.reward, abs=1e-6)
            assert joint[arm].loss == pytest.approx(own.loss, abs=1e-5)
            assert joint[arm].grad_norm == pytest.approx(own.grad_norm, rel=1e-3)
        assert (scores[arm] == expected_scores).all()
    return records


@pytest.mark.parametrize("base_steps", [0, 3])
def test_together_is_each_alone(architecture, sums, base_steps):
    before = model_state(architecture.model)
    agrees(architecture, task_with(sums, evens), config(base_steps=base_steps))
    assert model_state(architecture.model) == before
    assert bool(branches_share(architecture)) == (architecture.name in APART)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "dr_grpo"},
        {"kl": 0.1},
        {"kl": 0.1, "base_steps": 2},
        {"updates_per_batch": 2},
        {"updates_per_batch": 2, "base_steps": 3},
        {"gradient_checkpointing": True, "base_steps": 3},
        {"tokens_per_pass": 8, "base_steps": 3},
    ],
    ids=str,
)
def test_every_setting_keeps_them_alike(tiny, sums, changes):
    agrees(tiny, task_with(sums, evens), config(**changes))


def test_one_after_another_gives_the_same(tiny, sums):
    agrees(tiny, task_with(sums, evens), config(base_steps=2), together=False)


def test_unshared_prompts_give_the_same(tiny, sums):
    agrees(tiny, task_with(sums, evens), config(base_steps=2), share_prompts=False)


def test_bfloat16_learns_alike(tiny, sums):
    policy = Policy.from_objects(make_model("Qwen2").bfloat16(), tiny.tokenizer)
    assert branches_share(policy) == ""
    with JointTrainer(policy, task_with(sums, evens), config(base_steps=3), [(1, 1e-3)]) as trainer:
        first = trainer.step()[1, 1e-3]
        own = alone(policy, task_with(sums, evens), config(base_steps=3, steps=1), (1, 1e-3))[1][0]
        assert first.loss == pytest.approx(own.loss, abs=2e-3)
        assert first.grad_norm == pytest.approx(own.grad_norm, rel=0.05)
        assert all(p.dtype == torch.bfloat16 for p in trainer.live[1, 1e-3].module.parameters())


def test_a_broken_branch_leaves_the_others_alone(tiny, sums):
    settings = config(base_steps=0)
    with JointTrainer(tiny, task_with(sums, evens), settings, [(1, 1e-3), (3, 1e-3)]) as trainer:
        trainer.step()
        with torch.no_grad():
            next(iter(trainer.live[1, 1e-3].module.parameters())).fill_(float("nan"))
        records = [trainer.step(), trainer.step()]
        assert [set(r) for r in records] == [{(3, 1e-3)}] * 2
        assert "step 2: the policy's logits are no longer finite" in str(trainer.failures[1, 1e-3])
        weights = trainer.live[3, 1e-3].weights()
    expected = alone(tiny, task_with(sums, evens), settings, (3, 1e-3))[0]
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_dropped_arms_stop(tiny, sums):
    with JointTrainer(tiny, task_with(sums, evens), config(base_steps=3), [(1, 1e-3), (3, 1e-3)]) as trainer:
        assert set(trainer.step()) == {(1, 1e-3), (3, 1e-3)}
        memory = weakref.ref(trainer.live[1, 1e-3].optimizer)
        trainer.drop([(1, 1e-3)])
        gc.collect()
        assert memory() is None  # nothing holds on to its weights and moments
        assert set(trainer.step()) == {(3, 1e-3)}
        assert set(trainer.score(sums.held_out[:4], decoding="sampled", samples=2)[1]) == {(3, 1e-3)}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_policy_is_left_as_found(tiny, sums, error):
    before = model_state(tiny.model)

    def broken():
        with JointTrainer(tiny, task_with(sums, evens), config(), [(1, 1e-3)]) as trainer:
            trainer.step()
            raise error

    with pytest.raises(error):
        broken()
    assert model_state(tiny.model) == before


@pytest.mark.parametrize(("base_steps", "updates"), [(0, 1), (2, 1), (2, 2)])
def test_an_arm_goes_on_alone_as_if_nothing_had_happened(tiny, sums, tmp_path, base_steps, updates):
    task = task_with(sums, evens)
    settings = config(steps=5, base_steps=base_steps, learning_rate=1e-3, updates_per_batch=updates)
    with JointTrainer(tiny, task, settings, [(1, 1e-3), (3, 1e-3)]) as trainer:
        for _ in range(3):
            trainer.step()
        trainer.state((3, 1e-3)).save(tmp_path / "state.safetensors")
    start = TrainingState.load(tmp_path / "state.safetensors")
    assert start.fits((3,), settings, start.setting)
    assert start.setting == setting_of(tiny, task, sums.train) != setting_of(tiny, task, sums.train[1:])
    assert not start.fits((3,), settings, setting_of(tiny, sums, sums.train))  # another reward
    assert not start.fits((1,), settings, start.setting)
    assert not start.fits((3,), replace(settings, learning_rate=2e-3), start.setting)
    with Trainer(tiny, task, settings, layers=[3], start=start) as trainer:
        assert len(trainer.run()) == 2
        weights = trainer.weights()
    expected, curve, _ = alone(tiny, task, settings, (3, 1e-3))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
    assert [step["reward"] for step in start.curve] == pytest.approx([step.reward for step in curve[:3]])


def test_stopped_arms_go_on_together(tiny, sums):
    task, arms = task_with(sums, evens), [(1, 1e-3), (3, 1e-3)]
    with JointTrainer(tiny, task, config(base_steps=3), arms) as trainer:
        trainer.step()
        states = [trainer.state(arm) for arm in arms]
        trainer.step()
        expected = {arm: trainer.live[arm].weights() for arm in arms}
    with JointTrainer(tiny, task, config(base_steps=3), [*arms, (0, 1e-3)]) as trainer:
        trainer.restore(states)
        assert set(trainer.step()) == set(arms)
        for arm in arms:
            for name, value in trainer.live[arm].weights().items():
                torch.testing.assert_close(value, expected[arm][name])
