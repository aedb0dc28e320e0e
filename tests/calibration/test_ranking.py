import numpy as np
import pytest

from calibration.ranking import rank_layers, ranks
from probes.registry import Column, Probe
from probes.table import LayerTable


def probe(name, *votes):
    columns = tuple(Column(f"{name}{i}", "1", g, s, "a test") for i, (g, s) in enumerate(votes))
    return Probe(name, "probe", columns, "none", "here", lambda m: {})


def table(n, **columns):
    found = LayerTable(n)
    found.add({name: np.array(values, dtype=float) for name, values in columns.items()})
    return found


def test_ranks_by_hand():
    np.testing.assert_allclose(ranks(np.array([10, 30, 20])), [0, 1, 0.5])
    np.testing.assert_allclose(ranks(np.array([1, 1, 2])), [0.25, 0.25, 1])
    np.testing.assert_allclose(ranks(np.ones(1)), [0.5])


def test_half_prior_half_probes_one_vote_a_probe():
    """Probe a has two columns that agree, b has one that says the opposite: they cancel."""
    a, b = probe("a", (1, 0), (1, 0)), probe("b", (-1, 0))
    ranking = rank_layers(table(4, a0=[1, 2, 3, 4], a1=[1, 2, 3, 4], b0=[1, 2, 3, 4]), [a, b], "greedy")
    np.testing.assert_allclose(ranking.probes, 0.5)
    np.testing.assert_allclose(ranking.score, 0.5 * ranking.prior + 0.25)


def test_the_decoding_decides_the_sign():
    p = probe("p", (1, -1))
    values = table(5, p0=[5, 4, 3, 2, 1])
    np.testing.assert_allclose(rank_layers(values, [p], "greedy").probes, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(rank_layers(values, [p], "sampled").probes, [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("columns", [{}, {"p0": [2, 2, 2, 2, 2]}])
def test_without_a_vote_the_prior_decides(columns):
    ranking = rank_layers(table(5, **columns), [probe("p", (1, 1))], "greedy")
    assert ranking.probes is None
    np.testing.assert_array_equal(ranking.score, ranking.prior)


def test_ties_go_to_the_later_layer():
    """Two layers at mirrored places of a flat prior would tie; a planted tie is broken towards the end."""
    values = rank_layers(table(2, p0=[1, 0]), [probe("p", (1, 0))], "sampled")  # vote 0: prior alone, last layer
    assert values.order == [1, 0]
    tied = rank_layers(table(2, p0=[0, 1]), [probe("p", (0, -1))], "sampled")  # prior says 1, probe says 0
    np.testing.assert_allclose(tied.score, 0.5)
    assert tied.order == [1, 0]
    assert (tied.rank(1), tied.rank(0)) == (1, 2)


def test_planted_layer_wins_where_the_prior_allows():
    values = np.zeros(12)
    values[5] = 1
    assert rank_layers(table(12, p0=values), [probe("p", (1, 0))], "greedy").order[0] == 5
