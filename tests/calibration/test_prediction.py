from dataclasses import replace

import numpy as np

from calibration.prediction import Prediction


def test_near_ties_go_to_the_cheaper_layer():
    advantage = np.array([0.2, 0.1002, 0.1004, 0.1001, 0.3])
    plain = Prediction(*[advantage] * 3, 0.0, 0.1, *[np.full(5, 0.2)] * 2)
    assert plain.order == [4, 0, 3, 2, 1]  # the later, where nothing is known of costs
    assert replace(plain, costs=np.array([0.9, 0.3, 0.5, 0.4, 0.9])).order == [4, 0, 1, 3, 2]
    assert replace(plain, costs=np.array([0.9, 0.3, 0.3, 0.4, 0.9]), idle=frozenset([4])).order == [0, 2, 1, 3, 4]
