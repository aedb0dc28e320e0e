import torch

from probes.noise import Noise, choose_tokens

CPU = torch.device("cpu")


def test_noise_belongs_to_a_prompt_and_a_position_whatever_is_drawn_beside():
    noise = Noise(CPU, 3, 4)
    together = noise.draw([0, 5, 7], 2, 2, 11)
    assert torch.equal(together[2:4], Noise(CPU, 3, 4).draw([5], 2, 2, 11))
    for other in (noise.draw([5], 3, 2, 11), noise.draw([6], 2, 2, 11), Noise(CPU, 3, 5).draw([5], 2, 2, 11)):
        assert not torch.equal(together[2:4], other)


def test_choices_under_noise_have_the_softmax_frequencies():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0]).log_softmax(0)
    noise = Noise(CPU, 0, 0).draw([0], 0, 40_000, 4)
    for temperature in (1.0, 2.0):
        chosen = choose_tokens(logits.expand(40_000, 4), temperature, noise.clone())
        frequencies = torch.bincount(chosen, minlength=4) / 40_000
        assert (frequencies - (logits / temperature).softmax(0)).abs().max() < 4 * 0.5 / 40_000**0.5


def test_without_noise_the_likeliest_is_chosen_and_rows_that_are_not_finite_are_told():
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, float("nan"), 1.0], [float("-inf")] * 3])
    assert choose_tokens(logits, 0.0, None).tolist() == [1, -1, -1]
    assert choose_tokens(logits, 1.0, torch.zeros(3, 3)).tolist() == [1, -1, -1]
