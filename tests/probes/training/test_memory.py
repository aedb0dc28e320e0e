import torch

from probes.training.memory import training_bytes


def test_bytes_by_hand(own_tiny):
    n, layer = own_tiny.n_parameters, own_tiny.stack.sizes()[2]
    assert training_bytes(own_tiny, [2]) == 4 * n + layer * (4 + 4 + 8)
    assert training_bytes(own_tiny, None) == 4 * n + n * (4 + 4 + 8)
    own_tiny.model.to(torch.bfloat16)
    assert training_bytes(own_tiny, [2]) == 2 * n + layer * (2 + 4 + 4 + 8)
