import json

import pytest
from policies import task_with

from calibration.protocol import Protocol, split_task
from probes.errors import UsageError
from probes.tasks.task import prompt_key
from probes.training import TrainingConfig


def test_no_prompt_has_two_uses(sums):
    split = split_task(sums, Protocol(validation=40, held_out=50))
    sets = [{prompt_key(row["prompt"]) for row in part} for part in (split.train, split.validation, split.held_out)]
    assert [len(s) for s in sets] == [360, 40, 50]
    assert not sets[0] & sets[1]
    assert not (sets[0] | sets[1]) & sets[2]


def test_validation_takes_at_most_a_fifth(sums):
    split = split_task(task_with(sums, sums.reward, train=sums.train[:20]), Protocol(validation=64))
    assert (len(split.train), len(split.validation)) == (16, 4)


def test_every_choice_is_in_the_record():
    protocol = Protocol(TrainingConfig(kl=0.1, seed=5), learning_rates=(1e-5, 1e-4), seeds=2, decoding="sampled")
    found = json.loads(json.dumps(protocol.as_dict()))
    assert (found["kl"], found["seeds"], found["learning_rates"]) == (0.1, [5, 6], [1e-5, 1e-4])
    assert (found["decoding"], found["engine"], found["algorithm"]) == ("sampled", "native", "grpo")
    assert "learning_rate" not in found
    config = protocol.config(6, 1e-4)
    assert (config.seed, config.learning_rate, config.kl) == (6, 1e-4, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "0 seeds are not allowed"),
        ({"held_out": 0}, "0 held out are not allowed"),
        ({"learning_rates": ()}, "No learning rate"),
        ({"learning_rates": (1e-4, 2.0)}, "learning rate 2.0 is not allowed"),
        ({"decoding": "gready"}, "Did you mean 'greedy'"),
        ({"engine": "trll"}, "Did you mean 'trl'"),
        ({"rate_by": "x"}, "Unknown rate rule"),
    ],
)
def test_bad_protocols_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Protocol(**changes)
