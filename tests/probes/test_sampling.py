import pytest
import torch

from probes.noise import Noise
from probes.rollouts import SamplingConfig, collect_rollouts
from probes.sampling import sample_completions

PROMPTS = ["1+2=", "12+34=", "7+30=", "49+49="]


def encode(policy, prompts=PROMPTS):
    return [policy.tokenizer(p)["input_ids"] for p in prompts]


def greedy(policy, prompts, **changes):
    return sample_completions(policy, prompts, **{"group_size": 1, "max_new_tokens": 6, "temperature": 0, **changes})


def test_greedy_is_what_generate_gives(architecture):
    prompts = [[5, 9, 12], [7, 8, 9, 10, 11]]
    found = greedy(architecture, prompts)
    for prompt, completion in zip(prompts, found, strict=True):
        reference = architecture.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=architecture.eos_ids,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert completion == reference


def test_left_padding_and_finished_rows_change_nothing(tiny):
    together = greedy(tiny, encode(tiny))
    alone = [greedy(tiny, [prompt])[0] for prompt in encode(tiny)]
    assert together == alone
    assert all(ids[-1] == tiny.tokenizer.eos_token_id for ids in together)
    assert len({len(ids) for ids in together}) > 1  # so that rows did end at different times


def test_a_group_shares_its_prompt_but_not_its_samples(tiny):
    found = sample_completions(tiny, encode(tiny), 8, max_new_tokens=4, temperature=1.5, noise=Noise(tiny.device, 0, 0))
    assert len(found) == 32
    assert all(len({tuple(ids) for ids in found[i : i + 8]}) > 1 for i in range(0, 32, 8))


def test_sampled_frequencies_are_the_policy_probabilities(tiny):
    prompt = encode(tiny, ["12+34="])
    found = sample_completions(tiny, prompt, 4000, max_new_tokens=1, temperature=2.0, noise=Noise(tiny.device, 0, 0))
    with torch.no_grad():
        expected = (tiny.model(torch.tensor(prompt)).logits[0, -1] / 2.0).softmax(-1)
    counts = torch.bincount(torch.tensor([ids[0] for ids in found]), minlength=len(expected)) / 4000
    assert (counts - expected).abs().max() < 4 * 0.5 / 4000**0.5


def test_enough_ended_stops_early(tiny):
    lengths = [len(ids) for ids in greedy(tiny, encode(tiny), max_new_tokens=100, enough_ended=0.25)]
    assert max(lengths) == min(len(ids) for ids in greedy(tiny, encode(tiny)))


@pytest.mark.parametrize("seed", [0, 1])
def test_rollouts_are_set_by_the_seed(tiny, sums, seed):
    config = SamplingConfig(groups=4, max_prompts=8, max_new_tokens=4, seed=seed)
    first, second = (collect_rollouts(tiny, sums, config) for _ in range(2))
    assert [g.completion_ids for g in first.groups] == [g.completion_ids for g in second.groups]
    other = collect_rollouts(tiny, sums, SamplingConfig(groups=4, max_prompts=8, max_new_tokens=4, seed=seed + 1))
    assert [g.completion_ids for g in first.groups] != [g.completion_ids for g in other.groups]
