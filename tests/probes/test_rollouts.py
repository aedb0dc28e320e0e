import numpy as np
import pytest
from policies import Kept, model_state, task_with

from probes.errors import RunError, UsageError
from probes.rollouts import SamplingConfig, capped, collect_rollouts, group_advantages
from probes.scoring import measure_headroom


@pytest.mark.parametrize(
    ("rewards", "advantages"),
    [
        ([1, 0, 0, 1], [0.8659, -0.8659, -0.8659, 0.8659]),  # std of a sample of four: 0.57735
        ([1, 1, 1], [0, 0, 0]),
        ([2, np.nan, 0], [0.7071, 0, -0.7071]),  # None takes no part
        ([np.nan, np.nan], [0, 0]),
        ([3, np.nan], [0, 0]),
    ],
)
def test_group_advantages_by_hand(rewards, advantages):
    np.testing.assert_allclose(group_advantages(np.array(rewards, dtype=float)), advantages, atol=2e-4)


def test_draws_until_enough_groups_have_spread(tiny, sums):
    config = SamplingConfig(groups=6, max_prompts=200, batch_prompts=4, max_new_tokens=4)
    rollouts = collect_rollouts(tiny, sums, config)
    assert len(rollouts.informative) >= 6
    assert len(rollouts.groups) % 4 == 0
    before_last = rollouts.groups[:-4]
    assert sum(group.has_spread for group in before_last) < 6
    assert rollouts.share_without_spread == 1 - len(rollouts.informative) / len(rollouts.groups)


def test_stops_at_the_limit_without_spread(tiny, sums):
    flat = task_with(sums, lambda completions, **kwargs: [1.0] * len(completions))
    rollouts = collect_rollouts(tiny, flat, SamplingConfig(groups=4, max_prompts=20, batch_prompts=8, max_new_tokens=2))
    assert len(rollouts.groups) == 20
    assert rollouts.share_without_spread == 1


def test_max_new_tokens_follows_what_rewarded_answers_need(tiny, sums):
    rollouts = collect_rollouts(tiny, sums, SamplingConfig(groups=2, max_prompts=8))
    longest_answer = 3  # two digits and the end
    assert longest_answer <= rollouts.max_new_tokens <= 2 * longest_answer


@pytest.mark.parametrize(("wanted", "limit", "given"), [(100, 20, 12), (5, 20, 5), (100, None, 100)])
def test_completions_are_capped_by_the_context(wanted, limit, given):
    assert capped(wanted, [[1] * 8, [1] * 3], limit) == given


def test_prompts_must_fit_the_context(tiny, sums):
    long = task_with(sums, sums.reward, train=[{"prompt": "1" * 300, "answer": "1"}])
    with pytest.raises(UsageError, match="The prompt .1111.* has 300 tokens.*context is 256"):
        collect_rollouts(tiny, long, SamplingConfig(groups=1, max_prompts=1))


def test_an_interrupted_run_goes_on_with_the_same_numbers(tiny, sums):
    config = SamplingConfig(groups=24, max_prompts=24, batch_prompts=8, max_new_tokens=4)
    calls = 0

    def breaks(completions, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return sums.reward(completions, **kwargs)

    memory, before = Kept(), model_state(tiny.model)
    with pytest.raises(KeyboardInterrupt):
        collect_rollouts(tiny, task_with(sums, breaks), config, memory=memory)
    assert model_state(tiny.model) == before
    assert len(memory.values) == 3
    resumed = collect_rollouts(tiny, sums, config, memory=memory)
    straight = collect_rollouts(tiny, sums, config)
    assert [g.completion_ids for g in resumed.groups] == [g.completion_ids for g in straight.groups]


def test_a_broken_reward_shows_before_the_long_sampling(tiny, sums):
    def broken(completions, **kwargs):
        raise ZeroDivisionError("by zero")

    memory = Kept()
    with pytest.raises(RunError, match="'broken' raised ZeroDivisionError: by zero"):
        collect_rollouts(tiny, task_with(sums, broken), SamplingConfig(), memory=memory)
    assert memory.values == {}


def test_headroom_is_scored_on_held_out_prompts_in_either_decoding(tiny, sums):
    seen = []

    def watching(prompts, completions, **kwargs):
        seen.extend(prompts)
        return sums.reward(completions, **kwargs)

    config = SamplingConfig(groups=2, max_prompts=4)
    greedy = measure_headroom(tiny, task_with(sums, watching), config, 4, "greedy")
    assert set(seen) <= {row["prompt"] for row in sums.held_out}
    assert len(greedy) == 64
    assert 0.2 < greedy.mean() < 0.9  # knows the task in part
    assert greedy.mean() >= measure_headroom(tiny, sums, config, 4, "sampled").mean() - 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 0}, "groups 0"),
        ({"group_size": 1}, "group size 1"),
        ({"temperature": 0}, "temperature 0"),
        ({"groups": 9, "max_prompts": 8}, "max prompts 8"),
        ({"max_new_tokens": 0}, "max new tokens 0"),
    ],
)
def test_bad_sampling_configuration(changes, message):
    with pytest.raises(UsageError, match=message):
        SamplingConfig(**changes)
