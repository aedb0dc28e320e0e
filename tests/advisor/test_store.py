import json
import os

import pytest

from advisor.store import RunFolder
from probes.errors import RunError, UsageError

IDENTITY = {"model": "m", "seed": 0}


def test_finished_work_is_recalled_by_the_next_run(tmp_path):
    first = RunFolder(tmp_path / "a" / "run", IDENTITY)
    assert not first.resumed
    first.keep("probe", "x", {"columns": [1.5]})
    second = RunFolder(tmp_path / "a" / "run", IDENTITY)  # as after kill -9: the first was never closed
    assert second.resumed
    assert second.recall("probe", "x") == {"columns": [1.5]}
    assert second.recall("probe", "y") is None
    assert json.loads((second.path / "config.json").read_text()) == {"schema_version": 1, **IDENTITY}
    assert json.loads((second.path / "environment.json").read_text())["packages"]["torch"]


def test_a_half_written_last_line_is_dropped(tmp_path):
    RunFolder(tmp_path, IDENTITY).keep("probe", "x", 1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"kind": "probe", "key": "y", "val')
    again = RunFolder(tmp_path, IDENTITY)
    assert (again.recall("probe", "x"), again.recall("probe", "y")) == (1, None)
    again.keep("probe", "z", 2)
    assert RunFolder(tmp_path, IDENTITY).recall("probe", "z") == 2


def test_a_damaged_line_is_named(tmp_path):
    RunFolder(tmp_path, IDENTITY).keep("probe", "x", 1)
    (tmp_path / "journal.jsonl").write_text("garbage\n")
    with pytest.raises(UsageError, match="line 1 is damaged"):
        RunFolder(tmp_path, IDENTITY)


def test_another_runs_folder_is_refused_and_left_alone(tmp_path):
    RunFolder(tmp_path, IDENTITY).keep("probe", "x", 1)
    with pytest.raises(UsageError, match="another run: its seed is 0, this one's is 1.*--output-dir"):
        RunFolder(tmp_path, {**IDENTITY, "seed": 1})
    assert RunFolder(tmp_path, IDENTITY).recall("probe", "x") == 1


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not empty.*thesis.tex"):
        RunFolder(tmp_path, IDENTITY)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run", IDENTITY)


def test_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, IDENTITY)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left.*same command"):
        folder.keep("probe", "x", 1)


def test_results_are_written_whole_or_not_at_all(tmp_path):
    folder = RunFolder(tmp_path, IDENTITY)
    folder.write_json("ranking.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        folder.write_json("ranking.json", {"a": float("nan")})
    assert json.loads((tmp_path / "ranking.json").read_text()) == {"a": 1}
