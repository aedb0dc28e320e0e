"""Every kind of bad input: one clear line on stderr with value, constraint and remedy, and the documented exit code."""

import json
import re
import shutil

import pytest
from policies import SUMS, TINY, make_model

FAST = ["--groups", "4", "--max-prompts", "8", "--max-new-tokens", "3"]
GOOD = ["--data", str(SUMS), "--reward", "exact", *FAST]
CHAT = {"prompt": [{"role": "user", "content": "1+1="}], "answer": "2"}


@pytest.fixture
def place(tmp_path, tiny):
    """A folder with every bad file that the table below names."""
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": \n')
    (tmp_path / "question.jsonl").write_text('{"question": "1+1="}\n')
    (tmp_path / "unanswered.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "1+2="}\n')
    (tmp_path / "long.jsonl").write_text("".join(json.dumps({"prompt": c * 300, "answer": "1"}) + "\n" for c in "ab"))
    (tmp_path / "chat.jsonl").write_text(
        json.dumps(CHAT) + "\n" + json.dumps({**CHAT, "prompt": [{"role": "user", "content": "2+1="}]}) + "\n"
    )
    (tmp_path / "rewards.py").write_text(
        "def raises(completions, **kwargs): raise ZeroDivisionError('by zero')\n"
        "def short(completions, **kwargs): return [0.0]\n"
        "def words(completions, **kwargs): return ['good'] * len(completions)\n"
    )
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "a-file").write_text("")
    (tmp_path / "other-run").mkdir()
    (tmp_path / "other-run" / "config.json").write_text('{"model": "another"}')
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("precious")
    (tmp_path / "no-config").mkdir()
    make_model("Llama", hidden_size=32).save_pretrained(tmp_path / "no-tokenizer")
    shutil.copytree(TINY, tmp_path / "no-weights", ignore=shutil.ignore_patterns("*.safetensors"))
    from transformers import BertConfig, BertLMHeadModel

    BertLMHeadModel(
        BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(tmp_path / "encoder")
    tiny.tokenizer.save_pretrained(tmp_path / "encoder")
    (tmp_path / "bad.gguf").write_bytes(b"not gguf")
    return tmp_path


DATA = ["--reward", "exact", *FAST, "--data"]
REWARD = ["--data", str(SUMS), *FAST, "--reward"]
CASES = {
    "unknown model": (2, "./nowhere", GOOD, "no file or folder './nowhere'.*hub name"),
    "folder without config": (2, "{}/no-config", GOOD, "no config.json.*save_pretrained"),
    "folder without weights": (2, "{}/no-weights", GOOD, "could not be loaded.*safetensors"),
    "broken GGUF": (2, "{}/bad.gguf", GOOD, "bad.gguf.*cannot be read"),
    "encoder": (2, "{}/encoder", GOOD, "encoder.*decoder-only"),
    "empty data": (2, TINY, [*DATA, "{}/empty.jsonl"], "no rows"),
    "malformed data": (2, TINY, [*DATA, "{}/broken.jsonl"], "line 2: not JSON"),
    "missing data": (2, TINY, [*DATA, "{}/none.jsonl"], "none.jsonl' cannot be read"),
    "missing column": (2, TINY, [*DATA, "{}/question.jsonl"], 'line 1: the column "prompt" is missing'),
    "missing answer": (2, TINY, [*DATA, "{}/unanswered.jsonl"], 'column "answer", which is missing.*FILE.py:function'),
    "prompt longer than context": (2, TINY, [*DATA, "{}/long.jsonl"], "300 tokens.*context is 256.*Shorten"),
    "chat without template": (2, TINY, [*DATA, "{}/chat.jsonl"], "no chat template.*--prompt-style plain"),
    "reward raises": (1, TINY, [*REWARD, "{}/rewards.py:raises"], "'raises' raised ZeroDivisionError: by zero"),
    "reward returns the wrong count": (1, TINY, [*REWARD, "{}/rewards.py:short"], "returned 1 values for .*one float"),
    "reward returns words": (1, TINY, [*REWARD, "{}/rewards.py:words"], "returned 'good'.*finite number or None"),
    "reward not importable": (2, TINY, [*REWARD, "{}/syntax.py:f"], "cannot be imported: SyntaxError"),
    "reward file missing": (2, TINY, [*REWARD, "{}/none.py:f"], "does not exist"),
    "unknown reward function": (2, TINY, [*REWARD, "{}/rewards.py:rises"], "Did you mean 'raises'"),
    "unknown reward": (2, TINY, [*REWARD, "exakt"], "Unknown reward 'exakt'. Did you mean 'exact'"),
    "unknown task": (2, TINY, ["--task", "additon"], "Unknown task 'additon'. Did you mean 'addition'"),
    "task and data": (2, TINY, [*GOOD, "--task", "addition"], "give one of them"),
    "task with static": (2, TINY, ["--effort", "static", "--task", "addition"], "--task has no effect"),
    "reward without data": (2, TINY, ["--reward", "exact"], "--reward goes with --data"),
    "bad task config": (2, TINY, ["--task", "reasoning-gym:chain_sum", "--task-config", "x"], "not KEY=VALUE"),
    "unknown effort": (2, TINY, [*GOOD, "--effort", "prob"], "Unknown effort 'prob'. Did you mean 'probe'"),
    "unknown decoding": (2, TINY, [*GOOD, "--decoding", "greed"], "Did you mean 'greedy'"),
    "unknown prompt style": (2, TINY, [*GOOD, "--prompt-style", "x"], "Prompt style 'x'.*auto, chat, plain"),
    "unknown dtype": (2, TINY, [*GOOD, "--dtype", "float31"], "Did you mean 'float32'"),
    "unusable device": (2, TINY, [*GOOD, "--device", "warp"], "Device 'warp'.*--device cpu"),
    "too few groups": (2, TINY, [*GOOD, "--groups", "3"], "3 groups are too few"),
    "no groups": (2, TINY, [*GOOD, "--groups", "0"], "groups 0 is not allowed"),
    "group of one": (2, TINY, [*GOOD, "--group-size", "1"], "group size 1 is not allowed.*at least 2"),
    "temperature 0": (2, TINY, [*GOOD, "--temperature", "0"], "temperature 0.0 is not allowed"),
    "not a number": (2, TINY, [*GOOD, "--groups", "many"], "'many' is not a valid integer"),
    "output is a file": (2, TINY, [*GOOD, "--output-dir", "{}/a-file"], "a-file' cannot be written"),
    "output holds another run": (2, TINY, [*GOOD, "--output-dir", "{}/other-run"], "holds another run"),
    "output is somebody's folder": (2, TINY, [*GOOD, "--output-dir", "{}/used"], "not empty.*--output-dir"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(cli, place, monkeypatch, case):
    monkeypatch.chdir(place)
    code, model, options, message = CASES[case]
    fill = lambda text: str(text).replace("{}", str(place))  # noqa: E731
    found, out, err = cli("recommend", fill(model), *map(fill, options))
    error = [line for line in err.splitlines() if line.startswith("Error:")]
    assert found == code
    assert len(error) == 1, err
    assert re.search(message, error[0]), error[0]
    assert "Traceback" not in err
    assert out == ""
    assert (place / "used" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recomend", "x"], "Unknown command 'recomend'. Did you mean 'recommend'"),
        (["recommend"], "Missing argument 'MODEL'"),
        (["recommend", "x", "--sed", "1"], "No such option.*--seed"),
        (["probe", str(TINY), *GOOD, "--probe", "gradient"], "Unknown probe 'gradient'. Did you mean 'gradients'"),
        (["probe", str(TINY), "--effort", "static", "--probe", "gradients"], "'gradients' needs --effort probe"),
    ],
)
def test_wrong_commands(cli, arguments, message):
    code, _, err = cli(*arguments)
    assert code == 2
    assert re.search(message, err), err


def test_debug_shows_the_traceback(cli):
    with pytest.raises(Exception, match="no file or folder"):
        cli("recommend", "./nowhere", "--debug")
