import json

import pytest

from probes.errors import UsageError
from probes.tasks import list_tasks, load_task
from probes.tasks.reasoning_gym import final_answer
from probes.tasks.task import Task, prompt_key, split_rows


def keys(rows):
    return {prompt_key(row["prompt"]) for row in rows}


@pytest.mark.parametrize("name", ["addition", "subtraction", "larger"])
def test_arithmetic(name):
    task = load_task(name, seed=3)
    assert not keys(task.train) & keys(task.held_out)
    assert len(task.held_out) > 50
    for row in [*task.train, *task.held_out]:
        a, b = (int(word.strip(",?")) for word in row["prompt"].split() if word.strip(",?").isdigit())
        assert int(row["answer"]) == {"addition": a + b, "subtraction": a - b, "larger": max(a, b)}[name]
        assert int(row["answer"]) >= 0
    assert task.reward([f"It is {task.train[0]['answer']}."], [task.train[0]["answer"]]) == [1.0]
    assert load_task(name, seed=3).train == task.train
    assert load_task(name, seed=4).train != task.train


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_jsonl_with_text_chat_and_other_columns(tmp_path):
    rows = [{"prompt": f"say {i}", "answer": str(i), "level": i} for i in range(20)]
    rows += [{"prompt": [{"role": "user", "content": f"say {i}"}], "answer": str(i)} for i in range(20)]
    task = load_task(data=write(tmp_path / "mine.jsonl", rows), reward="exact")
    assert task.name == "mine"
    assert (len(task.train), len(task.held_out)) == (32, 8)
    assert not keys(task.train) & keys(task.held_out)
    assert {"prompt", "answer", "level"} == set().union(*(row.keys() for row in task.train))


def test_rows_with_the_same_prompt_stay_together():
    rows = [{"prompt": str(i % 10), "n": i} for i in range(100)]
    train, held_out = split_rows(rows)
    assert not keys(train) & keys(held_out)
    assert len(train) + len(held_out) == 100
    more = [*rows, {"prompt": "new"}]
    assert len(keys(train) & keys(split_rows(more)[1])) <= 1


def test_overlap_is_refused():
    with pytest.raises(UsageError, match="1 prompts both in training and held out"):
        Task("t", [{"prompt": "a"}], [{"prompt": "a"}], lambda **k: [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ('{"prompt": "a", "answer": "b"}\n{"prompt": "a"', "line 2: not JSON"),
        ('["a"]', "line 1: a list"),
        ('\n{"question": "a"}', 'line 2: the column "prompt" is missing; this line has: question'),
        ('{"prompt": 3}', 'line 1: "prompt" must be text'),
        ('{"prompt": ""}', 'line 1: "prompt" must be text'),
        ('{"prompt": [{"role": "user"}]}', 'line 1: "prompt" must be text'),
        ('{"prompt": "a", "answer": "1"}\n{"prompt": "b"}', 'row 2: .*"answer", which is missing'),
        ('{"prompt": "a", "answer": "1"}', "fewer than two different prompts"),
    ],
)
def test_malformed_jsonl(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_task(data=str(path))


def test_missing_file_and_byte_order_mark(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_task(data=str(tmp_path / "none.jsonl"))
    (tmp_path / "bom.jsonl").write_text(
        '\ufeff{"prompt": "a", "answer": "1"}\n{"prompt": "b", "answer": "1"}\n', "utf-8"
    )
    assert len(load_task(data=str(tmp_path / "bom.jsonl")).train) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "additon"}, "Unknown task 'additon'. Did you mean 'addition'"),
        ({"name": "addition", "data": "x.jsonl"}, "give one of them"),
        ({"name": "addition", "reward": "exact"}, "--reward goes with --data"),
        ({"name": "addition", "config": {"a": 1}}, "takes no configuration"),
        ({"name": "reasoning-gym:chain_sums"}, "Unknown reasoning-gym task 'chain_sums'. Did you mean 'chain_sum'"),
        ({"name": "reasoning-gym:chain_sum", "config": {"min_terms": -1}}, "reasoning-gym refuses"),
        ({"name": "reasoning-gym:chain_sum", "config": {"nothing": 1}}, "reasoning-gym refuses"),
    ],
)
def test_wrong_tasks(arguments, message):
    with pytest.raises(UsageError, match=message):
        load_task(**arguments)


@pytest.mark.parametrize("seed", [0, 1])
def test_reasoning_gym_items_are_never_shared(seed):
    task = load_task("reasoning-gym:chain_sum", seed=seed, config={"min_terms": 2, "max_terms": 2})
    assert (len(task.train), len(task.held_out)) == (512, pytest.approx(256, abs=40))
    assert not keys(task.train) & keys(task.held_out)
    sources = [{row["entry"]["metadata"].get("source_index") for row in rows} for rows in (task.train, task.held_out)]
    assert len(sources[0]) == 512
    entry = task.train[0]["entry"]
    right, wrong = entry["answer"], str(int(entry["answer"]) + 1)
    assert task.reward([f"It is {right}.", wrong, f"{right} or {wrong}"], entry=[entry] * 3) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "answer", "final"),
    [
        ("<answer> 5 </answer> and 6", "5", "5"), ("so the answer is blue.", "blue", "blue"), ("3 + 4\n= 7", "7", "7"),
        ("think\nAnswer: red", "red", "red"), ("", "7", ""), ("I say 1,234.5678", "7.5", "1234.5678"),
        ("no digits", "7", "no digits"),
    ],
)  # fmt: skip
def test_final_answer(text, answer, final):
    assert final_answer(text, answer) == final


def test_tasks_are_listed():
    assert {"addition", "subtraction", "larger", "reasoning-gym:NAME"} == set(list_tasks())
