import json
import re
import subprocess
import sys

import pytest

from advisor.store import RunFolder
from probes.errors import UsageError

IDENTITY = {"model": "m", "seed": 0}


def killed(folder):
    """What is left of a run after kill -9: nothing is closed, but the kernel gives its lock back."""
    folder._lock.release()
    return folder


def kept(path, *arguments):
    with RunFolder(path, IDENTITY) as folder:
        folder.keep(*arguments)


def recalled(path, *arguments):
    with RunFolder(path, IDENTITY) as folder:
        return folder.recall(*arguments)


def test_finished_work_is_recalled_by_the_next_run(tmp_path):
    first = RunFolder(tmp_path / "a" / "run", IDENTITY)
    assert not first.resumed
    first.keep("probe", "x", {"columns": [1.5]})
    killed(first)
    second = RunFolder(tmp_path / "a" / "run", IDENTITY)
    assert second.resumed
    assert second.recall("probe", "x") == {"columns": [1.5]}
    assert second.recall("probe", "y") is None
    assert json.loads((second.path / "config.json").read_text()) == {"schema_version": 1, **IDENTITY}
    assert json.loads((second.path / "environment.json").read_text())["packages"]["torch"]


def test_a_half_written_last_line_is_dropped(tmp_path):
    kept(tmp_path, "probe", "x", 1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"kind": "probe", "key": "y", "val')
    with RunFolder(tmp_path, IDENTITY) as again:
        assert (again.recall("probe", "x"), again.recall("probe", "y")) == (1, None)
        again.keep("probe", "z", 2)
    assert recalled(tmp_path, "probe", "z") == 2


def test_a_damaged_line_is_named(tmp_path):
    kept(tmp_path, "probe", "x", 1)
    (tmp_path / "journal.jsonl").write_text("garbage\n")
    with pytest.raises(UsageError, match="line 1 is damaged"):
        RunFolder(tmp_path, IDENTITY)


def test_another_runs_folder_is_refused_and_left_alone(tmp_path):
    kept(tmp_path, "probe", "x", 1)
    with pytest.raises(UsageError, match="another run: its seed is 0, this one's is 1.*--output-dir"):
        RunFolder(tmp_path, {**IDENTITY, "seed": 1})
    assert recalled(tmp_path, "probe", "x") == 1


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not empty.*thesis.tex"):
        RunFolder(tmp_path, IDENTITY)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run", IDENTITY)


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path):
    """A file-size limit stands in for the disk: the line is begun, does not fit, and is taken back."""
    code = """
import resource, signal, sys
from advisor.store import RunFolder
folder = RunFolder(sys.argv[1], {"model": "m", "seed": 0})
folder.keep("probe", "x", 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    folder.keep("probe", "y", "long " * 100)
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert re.match("RunError The journal in .* cannot be written .*same command again", run.stdout)
    assert len((tmp_path / "journal.jsonl").read_bytes().splitlines()) == 1
    assert (recalled(tmp_path, "probe", "x"), recalled(tmp_path, "probe", "y")) == (1, None)


def test_a_second_process_is_refused_while_the_first_works_and_not_after_it_was_killed(tmp_path):
    code = """
import sys
from advisor.store import RunFolder
folder = RunFolder(sys.argv[1], {"model": "m", "seed": 0})
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "open\n"
    with pytest.raises(UsageError, match="Another process is working in the output folder.*--output-dir"):
        RunFolder(tmp_path, IDENTITY)
    first.kill()
    first.wait()
    kept(tmp_path, "probe", "x", 1)
    assert recalled(tmp_path, "probe", "x") == 1


def test_results_are_written_whole_or_not_at_all(tmp_path):
    folder = RunFolder(tmp_path, IDENTITY)
    folder.write_json("ranking.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        folder.write_json("ranking.json", {"a": float("nan")})
    assert json.loads((tmp_path / "ranking.json").read_text()) == {"a": 1}
