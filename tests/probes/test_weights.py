import numpy as np
import pytest
import torch
from policies import make_model

from probes.checkpoint import LoadedWeights
from probes.measure import measure
from probes.policy import Policy
from probes.registry import get_probe
from probes.weights import (
    as_matrices,
    hill_exponent,
    largest_singular_value,
    random_block,
    singular_values,
    spectrum_of,
    spectrum_snr,
)


def measured(policy):
    return measure([get_probe("weights")], weights=LoadedWeights.of(policy)).columns


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (30, 30)])
def test_singular_values_against_svd(shape):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(singular_values(matrix), torch.linalg.svdvals(matrix))


def test_snr_by_hand():
    """Values 10, 4, 3, 2, 1: quartiles 4 and 2, edge 2 / 1.349 * 2 = 2.965 for a square matrix."""
    values = torch.tensor([10.0, 4.0, 3.0, 2.0, 1.0])
    assert spectrum_snr(values, 5, 5) == pytest.approx((10 + 4 + 3) / (2 + 1) / 10)
    assert spectrum_snr(torch.zeros(5), 5, 5) == 0
    assert np.isfinite(spectrum_snr(torch.ones(5), 5, 5))


def test_hill_by_hand_and_on_a_power_law():
    assert hill_exponent(torch.tensor([8.0, 4.0, 2.0, 1.0]), share=0.75) == pytest.approx(1 + 2 / np.log(4 * 2))
    uniform = torch.from_numpy(np.random.default_rng(0).uniform(size=20000))
    tail = (1 - uniform) ** (-1 / 2.0)  # density exponent 3
    assert hill_exponent(tail.sort(descending=True).values, share=0.1) == pytest.approx(3.0, abs=0.15)
    assert hill_exponent(torch.zeros(4)) == 0


def test_null_random_weights_are_at_the_random_edge(tiny):
    columns = measured(Policy.from_objects(make_model("Llama", hidden_size=64, intermediate_size=96), tiny.tokenizer))
    assert columns["spectral_excess"].max() < 1.1
    assert np.ptp(columns["relative_norm"]) < 0.05


def test_trained_weights_are_above_it(tiny):
    assert measured(tiny)["spectral_excess"].min() > 1.1


def test_planted_structure_comes_first(tiny):
    """A layer whose matrices get a strong low-rank part stands out by excess; one scaled up by its norm."""
    policy = Policy.from_objects(make_model("Llama", hidden_size=64, intermediate_size=96), tiny.tokenizer)
    with torch.no_grad():
        for p in policy.stack.layers[1].parameters():
            if p.ndim == 2:
                p += torch.outer(torch.ones(p.shape[0]), torch.ones(p.shape[1])) * 0.02
        for p in policy.stack.layers[2].parameters():
            p *= 3
    columns = measured(policy)
    assert columns["spectral_excess"].argmax() == 1
    assert columns["relative_norm"].argmax() == 2


def test_a_random_block_keeps_the_shape_ratio_and_the_edge():
    matrix = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
    block = random_block(matrix, 50)
    assert block.shape == (200, 50)
    assert random_block(matrix, 100) is matrix
    assert spectrum_of(matrix, 50).excess == pytest.approx(spectrum_of(matrix).excess, rel=0.1)


def test_structure_of_a_large_matrix_is_seen_though_a_block_hides_it():
    """A rank-one part 1.6 times the random edge: half of that in a block of a sixteenth of the entries."""
    rows, columns = (torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (400, 300))
    noise = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    edge = 400**0.5 + 300**0.5
    planted = noise + 1.6 * edge * torch.outer(rows / rows.norm(), columns / columns.norm())
    exact = float(torch.linalg.svdvals(planted)[0])
    assert largest_singular_value(planted) == pytest.approx(exact, rel=1e-3)
    assert spectrum_of(planted, 75).excess == pytest.approx(spectrum_of(planted).excess, rel=1e-3)
    assert spectrum_of(planted, 75).excess > 1.3
    assert spectrum_of(noise, 75).excess < 1.05


@pytest.mark.parametrize(("shape", "n"), [((32,), 0), ((4, 100), 0), ((16, 16), 1), ((3, 16, 16), 3), ((9, 16, 16), 4)])
def test_which_tensors_are_matrices(shape, n):
    assert len(as_matrices(torch.zeros(shape))) == n


def test_every_architecture(architecture):
    assert all(values.shape == (3,) for values in measured(architecture).values())
