import numpy as np
import pytest

from calibration.depth_prior import depth_prior, fit_prior, published_sweeps


def sweep(contribution, n_layers=12):
    return {
        "n_layers": n_layers,
        "layers": [{"layer": k, "contribution": contribution(k / (n_layers - 1))} for k in range(n_layers)],
    }


def test_planted_profile_is_recovered():
    prior = fit_prior([sweep(lambda d: 1 - (d - 0.3) ** 2, n) for n in (8, 12, 20)], knots=4, ridge=1e-6)
    depth = np.linspace(0, 1, 30)
    np.testing.assert_allclose(prior.predict(depth[:, None]), 1 - (depth - 0.3) ** 2, atol=0.02)


def test_null_flat_profile_stays_flat():
    np.testing.assert_allclose(fit_prior([sweep(lambda d: 0.7)]).predict(np.linspace(0, 1, 9)[:, None]), 0.7, atol=1e-6)


def test_every_sweep_weighs_the_same():
    dense, thin = sweep(lambda d: 1.0, 100), sweep(lambda d: 0.0, 4)
    assert fit_prior([dense, thin]).predict([[0.5]])[0] == pytest.approx(0.5, abs=0.05)


def test_published_shape():
    """Highest in the middle, lowest in the last third, as the study reports; best layers at 0.36 to 0.57."""
    assert len(published_sweeps()) == 7
    prior = depth_prior(28, "greedy")
    assert 0.36 <= prior.argmax() / 27 <= 0.57
    assert prior[19:].max() < prior[7:19].min()


@pytest.mark.parametrize("n_layers", [1, 2, 30])
def test_sampled_decoding_favours_late_layers(n_layers):
    assert depth_prior(n_layers, "sampled").argmax() == n_layers - 1
