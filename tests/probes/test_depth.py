import numpy as np
import pytest
from policies import make_model

from probes.checkpoint import LoadedWeights
from probes.depth import relative_depth
from probes.measure import measure
from probes.policy import Policy
from probes.registry import get_probe


@pytest.mark.parametrize(("n", "expected"), [(1, [0]), (2, [0, 1]), (5, [0, 0.25, 0.5, 0.75, 1])])
def test_relative_depth(n, expected):
    np.testing.assert_allclose(relative_depth(n), expected)


def test_knows_nothing_of_weights(tiny):
    """Null and planted effect in one: the same for a trained and an untrained policy of the same depth."""
    untrained = Policy.from_objects(make_model("Llama", num_hidden_layers=6), tiny.tokenizer)
    found = [
        measure([get_probe("depth")], weights=LoadedWeights.of(p)).columns["relative_depth"] for p in (tiny, untrained)
    ]
    np.testing.assert_array_equal(*found)
