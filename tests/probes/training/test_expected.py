"""Expected rewards over known completions, against a slow textbook reference and against sampling itself."""

import numpy as np
import torch
from policies import make_model, model_state, task_with

from probes.noise import Noise
from probes.policy import Policy
from probes.prompts import encode_all
from probes.rollouts import Group
from probes.sampling import sample_completions
from probes.training import TrainingConfig
from probes.training.expected import expected_rewards, know
from probes.training.joint import JointTrainer

ARMS = [(0, 1e-3), (1, 3e-3), (2, 1e-3)]
CONFIG = TrainingConfig(steps=2, prompts_per_step=3, group_size=4, max_new_tokens=4, warmup_steps=0)


def groups_of(sums, tokenizer, completions: list[list[list[int]]], rewards: list[list[float]]) -> list[Group]:
    return [
        Group(row, list(tokenizer(row["prompt"])["input_ids"]), ids, [""] * len(ids), np.array(r))
        for row, ids, r in zip(sums.train, completions, rewards, strict=False)
    ]


@torch.no_grad()
def textbook(policy: Policy, group: Group, temperature: float = 1.0) -> float:
    """One completion after another, one token after another."""
    total = 0.0
    for ids, reward in zip(group.completion_ids, group.rewards, strict=True):
        tokens, chance = list(group.prompt_ids), 1.0
        for token in ids:
            logits = policy.model(torch.tensor([tokens])).logits[0, -1].double()
            chance *= float(torch.softmax(logits / temperature, -1)[token])
            tokens.append(token)
        total += reward * chance
    return total


def known(sums, tokenizer) -> list[Group]:
    return groups_of(sums, tokenizer, [[[5, 6, 1], [7]], [], [[8, 1], [9, 10], [5]]], [[1.0, 0.5], [], [0.3, 2.0, 1.0]])


def test_it_is_the_textbook_sum_for_the_policy_and_every_branch(architecture, sums):
    groups = known(sums, architecture.tokenizer)
    before = model_state(architecture.model)
    evens = task_with(sums, lambda completion_ids, **kwargs: [float(ids[0] % 2) for ids in completion_ids])
    with JointTrainer(architecture, evens, CONFIG, ARMS) as trainer:
        for _ in range(2):
            trainer.step()
        base, own = trainer.expected(groups)
        for arm, branch in trainer.live.items():
            with branch.installed(architecture):
                slow = [textbook(architecture, group) for group in groups]
            np.testing.assert_allclose(own[arm], slow, rtol=2e-3, atol=1e-12)
    slow = [textbook(architecture, group) for group in groups]
    np.testing.assert_allclose(base, slow, rtol=2e-3, atol=1e-12)
    assert base[1] == 0  # nothing is known of it
    warm, _ = expected_rewards(architecture, [], groups, 2.0)
    np.testing.assert_allclose(warm, [textbook(architecture, group, 2.0) for group in groups], rtol=2e-3)
    assert model_state(architecture.model) == before


def test_it_is_what_sampling_estimates(tiny, sums):
    rows = sums.train[:6]
    prompts = encode_all([row["prompt"] for row in rows], tiny.tokenizer, "auto", None)
    words = sorted(set(range(len(tiny.tokenizer))) - {tiny.tokenizer.pad_token_id})
    every = groups_of(sums, tiny.tokenizer, [[[w] for w in words]] * 6, [[float(w % 3) for w in words]] * 6)
    exact, _ = expected_rewards(tiny, [], every, 1.0)
    drawn = sample_completions(tiny, prompts, 400, max_new_tokens=1, temperature=1.0, noise=Noise(tiny.device, 0, 0))
    sampled = np.array([ids[0] % 3 for ids in drawn], dtype=float).reshape(6, 400)
    error = sampled.std(1, ddof=1) / 20
    assert (np.abs(sampled.mean(1) - exact) < 4 * error + 1e-3).all()


def test_at_a_low_temperature_it_is_the_greedy_score(tiny, sums):
    prompts = encode_all([row["prompt"] for row in sums.train[:6]], tiny.tokenizer, "auto", None)
    greedy = sample_completions(tiny, prompts, 1, max_new_tokens=4, temperature=0.0)
    groups = groups_of(sums, tiny.tokenizer, [[ids, [*ids[:-1], 3]] for ids in greedy], [[1.0, 0.0]] * 6)
    cold, warm = (expected_rewards(tiny, [], groups, t)[0] for t in (1e-4, 1.0))
    np.testing.assert_allclose(cold, 1.0, atol=1e-3)
    assert (cold >= warm - 1e-9).all()


def test_what_is_known_are_the_distinct_completions_that_are_not_average(tiny, sums):
    def parity(completion_ids, **kwargs):
        return [None if len(ids) == 4 else -1.0 + (ids[0] % 2) for ids in completion_ids]

    rows = sums.train[:40]
    found = know(tiny, task_with(sums, parity), rows, CONFIG, samples=6)
    assert [group.row for group in found.groups] == rows
    assert any(group.completion_ids for group in found.groups)
    for group in found.groups:
        assert all(len(ids) != 4 for ids in group.completion_ids)  # never scored
        assert len(set(map(tuple, group.completion_ids))) == len(group.completion_ids)
        np.testing.assert_allclose(group.rewards, [ids[0] % 2 - 1 - found.average for ids in group.completion_ids])
    assert 0 < found.share <= 1.5
    nothing = know(tiny, task_with(sums, lambda completions, **kwargs: [None] * len(completions)), rows, CONFIG)
    assert not any(group.completion_ids for group in nothing.groups)
    assert not nothing.serves


def test_short_answers_are_known_and_long_ones_are_not(tiny, sums):
    assert know(tiny, sums, sums.train[:40], CONFIG).serves
    tail = task_with(sums, lambda completion_ids, **kwargs: [float(ids[-1] % 2) for ids in completion_ids])
    flat = Policy.from_objects(make_model("Llama"), tiny.tokenizer)  # hardly ever gives the same completion twice
    assert not know(flat, tail, sums.train[:40], CONFIG).serves


def test_being_surer_of_the_same_completions_is_no_gain(tiny, sums):
    """The null case: rewards that have nothing to do with the completions, at a temperature that sharpens."""
    rng, rows = np.random.default_rng(0), sums.train
    luck = task_with(sums, lambda completions, **kwargs: rng.integers(0, 2, len(completions)).astype(float).tolist())
    found = know(tiny, luck, rows, CONFIG)
    warm, cool = (expected_rewards(tiny, [], found.groups, t)[0] for t in (1.0, 0.5))
    gain = cool - warm
    assert abs(gain.mean()) < 3 * gain.std(ddof=1) / len(gain) ** 0.5
    right = know(tiny, sums, rows, CONFIG)
    warm, cool = (expected_rewards(tiny, [], right.groups, t)[0] for t in (1.0, 0.5))
    assert (cool - warm).mean() > 0.05  # of a policy that knows something it is one


def test_an_arm_that_is_no_longer_finite_fails_alone(tiny, sums):
    groups = known(sums, tiny.tokenizer)
    with JointTrainer(tiny, sums, CONFIG, ARMS) as trainer:
        with torch.no_grad():
            next(trainer.live[ARMS[1]].module.parameters()).fill_(float("nan"))
        base, own = trainer.expected(groups)
        assert np.isfinite(base).all()
        assert set(own) == {ARMS[0], ARMS[2]}
        assert "no longer finite" in str(trainer.failures[ARMS[1]])
