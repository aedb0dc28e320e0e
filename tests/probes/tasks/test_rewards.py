import functools

import numpy as np
import pytest

from probes.errors import RunError, UsageError
from probes.tasks.rewards import exact, last_number, load_reward, number, score

ROWS = [{"prompt": "1+1=", "answer": "2", "level": 3}, {"prompt": "2+2=", "answer": "4"}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("The answer is 7.", 7),
        ("3 + 4 = 7", 7),
        ("1,234 apples", 1234),
        ("-5", -5),
        ("is -5.", -5),
        ("10-3", 3),
        ("x=2.50", 2.5),
        ("between 3 and 5", 5),
        ("none", None),
        ("", None),
        ("7...", 7),
        ("v1.5-2", 2),
    ],
)
def test_last_number(text, value):
    assert last_number(text) == value


@pytest.mark.parametrize(
    ("reward", "completion", "answer", "value"),
    [
        (exact, " 7\n", "7", 1.0), (exact, "7.", "7", 0.0), (exact, "yes", "yes ", 1.0),
        (number, "3 + 4 = 7", "7", 1.0), (number, "7 or 8", "7", 0.0), (number, "7.0", 7, 1.0), (number, "", "7", 0.0),
        (number, "so #### 12", "work 3 * 4 #### 12", 1.0),
    ],
)  # fmt: skip
def test_built_in_rewards(reward, completion, answer, value):
    assert reward([completion], [answer]) == [value]
    assert reward([[{"role": "assistant", "content": completion}]], [answer]) == [value]


def test_called_as_trl_calls_it():
    """Keywords of TRL 1.16's GRPOTrainer._calculate_rewards, and nothing positional."""
    seen = {}

    def reward(**kwargs):
        seen.update(kwargs)
        kwargs["log_extra"]("note", ["a", "b"])
        kwargs["log_metric"]("metric", 1.0)
        return [1.0, None]

    found = score(reward, ROWS, ["2", "5"], [[3], [4, 1]])
    assert set(seen) == {
        "prompts",
        "completions",
        "completion_ids",
        "answer",
        "level",
        "trainer_state",
        "log_extra",
        "log_metric",
    }
    assert (seen["prompts"], seen["completions"]) == (["1+1=", "2+2="], ["2", "5"])
    assert (seen["completion_ids"], seen["answer"], seen["level"]) == ([[3], [4, 1]], ["2", "4"], [3, None])
    assert seen["trainer_state"].global_step == 0
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_chat_prompts_give_chat_completions():
    seen = {}
    chat = [{"role": "user", "content": "1+1"}]
    score(lambda **kwargs: seen.update(kwargs) or [0], [{"prompt": chat}], ["2"], [[3]])
    assert seen["prompts"] == [chat]
    assert seen["completions"] == [[{"role": "assistant", "content": "2"}]]


async def slow(completions, **kwargs):
    return [float(len(c)) for c in completions]


class Callable:
    async def __call__(self, completions, **kwargs):
        return [float(len(c)) for c in completions]


@pytest.mark.parametrize("reward", [slow, Callable(), functools.partial(slow, extra=1)])
def test_async_rewards(reward):
    assert score(reward, ROWS, ["2", "55"], [[3], [4]]) == [1.0, 2.0]


def test_async_rewards_inside_a_running_loop():
    import asyncio

    async def caller():
        return score(slow, ROWS, ["2", "55"], [[3], [4]])

    assert asyncio.run(caller()) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda **kwargs: [1.0], "returned 1 values for 2 completions"),
        (lambda **kwargs: None, "returned 0 values"),
        (lambda **kwargs: ["good", "bad"], "returned 'good'"),
        (lambda **kwargs: [float("inf"), 0], "returned inf"),
        (lambda **kwargs: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_bad_rewards_are_one_clear_error(reward, message):
    with pytest.raises(RunError, match=message):
        score(reward, ROWS, ["2", "5"], [[3], [4]])


def test_reward_from_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_reward.py").write_text("def length(c): return float(len(c))\n")
    (tmp_path / "mine.py").write_text(
        "from neighbour_of_reward import length\n"
        "def reward(completions, **kwargs): return [length(c) for c in completions]\n"
    )
    assert load_reward(f"{tmp_path}/mine.py:reward")(completions=["abc"]) == [3.0]


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("", "numbr", "Unknown reward 'numbr'. Did you mean 'number'"),
        ("", "{}/none.py:f", "does not exist"),
        ("def reward(): pass", "{}/mine.py:rewrd", "Unknown reward function 'rewrd'. Did you mean 'reward'"),
        ("import nothing_like_this", "{}/mine.py:f", "cannot be imported: ModuleNotFoundError"),
        ("def f(:", "{}/mine.py:f", "cannot be imported: SyntaxError"),
    ],
)
def test_rewards_that_cannot_be_loaded(tmp_path, text, spec, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_reward(spec.format(tmp_path))
