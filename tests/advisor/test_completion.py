import os
import subprocess
import sys

import pytest


def complete(*begun):
    """What bash would be offered after these words."""
    words = ["advisor", *begun]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'advisor'; from advisor.cli import main; main()"],
        env={
            **os.environ,
            "_ADVISOR_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        (["comp"], ["plain,completion"]),
        (["recommend", "--eff"], ["plain,--effort"]),
        (["recommend", "--effort", "w"], ["plain,warmup"]),
        (["recommend", "--task", "sub"], ["plain,subtraction"]),
        (["recommend", "smol"], ["plain,smollm2-135m"]),
        (["recommend", "./mod"], ["file,./mod"]),
        (["recommend", "m", "--reward", "nu"], ["plain,number"]),
        (["probe", "m", "--probe", "grad"], ["plain,gradients"]),
        (["verify", "--from", "adv"], ["dir,adv"]),
        (["sweep", "m", "--engine", ""], ["plain,native", "plain,trl"]),
        (["completion", "z"], ["plain,zsh"]),
    ],
)
def test_what_is_offered(begun, offered):
    assert complete(*begun) == offered


def test_the_script_is_one_that_the_shell_reads(cli, tmp_path):
    code, out, _ = cli("completion", "bash")
    assert code == 0
    assert "_ADVISOR_COMPLETE=bash_complete" in out
    subprocess.run(["bash", "-n"], input=out, text=True, check=True)
    assert "#compdef advisor" in cli("completion", "zsh")[1]
    assert "complete --no-files --command advisor" in cli("completion", "fish")[1]


def test_another_shell_is_refused(cli):
    code, _, err = cli("completion", "bsh")
    assert code == 2
    assert "Did you mean 'bash'" in err
