import pytest
from pairs import make_pair

from calibration.corpus.records import save_pair
from calibration.known import known_sweeps


def test_a_published_sweep_is_found_by_name_and_depth():
    found = known_sweeps("hub/cache/Qwen3-1.7B-Base", [1] * 28, None, "greedy")
    assert [sweep.source for sweep in found] == ["arXiv 2607.01232"]
    assert len(found[0].contributions) == 28
    assert found[0].contributions[found[0].order[0]] == max(found[0].contributions.values())
    assert known_sweeps("Qwen3-1.7B-Base", [1] * 27, None, "greedy") == []
    assert known_sweeps("Qwen3-1.7B-Base", [1] * 28, None, "sampled") == []


def test_an_own_sweep_is_found_by_its_weights_alone(tmp_path):
    pair = make_pair("own", [0.1, 0.9, 0.5], member="mine")
    save_pair(pair, tmp_path)
    found = known_sweeps("anything", [100] * 3, lambda: "mine", "greedy", [tmp_path])
    assert [sweep.task for sweep in found] == ["add"]
    assert found[0].order[0] == 1
    assert found[0].contributions[1] == pytest.approx(0.9, abs=0.15)
    assert known_sweeps("anything", [100] * 3, lambda: "another", "greedy", [tmp_path]) == []


def test_weights_are_only_read_where_some_sweep_is_of_such_layers(tmp_path):
    assert known_sweeps("x", [12345] * 7, lambda: pytest.fail("the weights were read"), "greedy", [tmp_path]) == []
