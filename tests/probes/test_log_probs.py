import pytest
import torch

from probes.log_probs import token_log_probs

SOURCE = torch.tensor([3, 0, 3, 99, 70, 3])  # a row may predict several tokens, and rows come in any order
TARGETS = torch.tensor([5, 1, 6, 0, 6, 5])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_it_is_the_log_of_the_softmax_with_its_gradient(temperature):
    logits = torch.randn(100, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, 1.0])
    expected = (logits / temperature).log_softmax(-1)[SOURCE, TARGETS]
    found = token_log_probs(logits, SOURCE, TARGETS, temperature)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((value * weights).sum(), logits)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(100, 5000, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    found = token_log_probs(logits, SOURCE, TARGETS, 1.0)
    torch.testing.assert_close(found, logits.detach().float().log_softmax(-1)[SOURCE, TARGETS])
    found.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_confident_tokens_keep_their_gradient_in_half_precision():
    """Of a token with probability 0.9975, the gradient is 1 - p: rounding p first would leave nothing of it."""
    logits = torch.tensor([[6.0, 0.0]]).bfloat16().requires_grad_()
    token_log_probs(logits, torch.tensor([0]), torch.tensor([0]), 1.0).sum().backward()
    assert logits.grad[0, 0].item() == pytest.approx(0.00247, rel=0.02)
    assert logits.grad[0, 1].item() == pytest.approx(-0.00247, rel=0.02)
