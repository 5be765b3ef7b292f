"""Tests of `run.json`, the record of how a run was started."""

import getpass
import json
import os
import platform
import socket
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

import mindcv
from mindcv.engine import RemovalOfEarlierRun, RunRecord, describe_start
from mindcv.engine.progress import RunProgress
from mindcv.engine.run_record import describe_machine, git_revision, read_starts
from mindcv.kernels import status
from mindcv.utils.errors import UserError

FACTS = {"command": ["train.py"], "options": {"lr": 0.1}}


def begun(epoch=0, step=0, global_step=0):
    return RunProgress(5, 10, 4, epoch=epoch, step=step, global_step=global_step)


def write_record(folder, facts=FACTS, at=(0, 0, 0)):
    record = RunRecord(folder, facts)
    record.on_train_begin(begun(*at))
    epoch, step, global_step = at
    record.on_step_end(begun(epoch, step + 1, global_step + 1))
    record.on_step_end(begun(epoch, step + 2, global_step + 2))


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", folder, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_run_record_holds_one_entry_for_each_start(tmp_path):
    write_record(tmp_path)
    write_record(tmp_path, {**FACTS, "options": {"lr": 0.2}}, (3, 4, 24))
    first, second = read_starts(tmp_path)
    assert first == {**FACTS, "resumed_at": None}
    assert second["options"] == {"lr": 0.2} and second["resumed_at"] == {"epoch": 3, "step": 4, "global_step": 24}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_run_record_begins_anew_after_the_first_step_of_a_run_that_removes_an_earlier_one(tmp_path):
    write_record(tmp_path, {"command": ["old"]})
    callbacks = [RemovalOfEarlierRun(tmp_path), RunRecord(tmp_path, FACTS)]
    for callback in callbacks:
        callback.on_train_begin(begun(2, 1, 11))  # resumed from another folder
    assert [start["command"] for start in read_starts(tmp_path)] == [["old"]], "the new run could still fail"
    for _ in range(2):
        for callback in callbacks:
            callback.on_step_end(begun(2, 2, 12))
    (start,) = read_starts(tmp_path)
    assert start["command"] == ["train.py"] and start["resumed_at"]["global_step"] == 11


@pytest.mark.parametrize("text", ["{", "[]", '{"starts": 3}', '{"starts": [3]}', '{"name": "another program"}'])
def test_run_record_keeps_a_file_that_it_cannot_read(tmp_path, text, capsys):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json"):
        read_starts(tmp_path)
    write_record(tmp_path)
    assert (tmp_path / "run.1.json").read_text() == text and len(read_starts(tmp_path)) == 1
    line = capsys.readouterr().err
    assert line.startswith("warning: ") and "run.1.json" in line


def test_describe_start_names_command_options_versions_and_device(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1"])
    start = describe_start({"lr": 0.1, "scale": (0.5, 1.0), "mode": 0}, {"lr": "command line", "other": "a file"}, 2)
    start = json.loads(json.dumps(start))
    assert start["command"] == ["train.py", "--lr", "0.1"]
    assert start["options"] == {"lr": 0.1, "scale": [0.5, 1.0], "mode": 0}
    assert start["option_sources"] == {"lr": "command line"}
    versions = start["versions"]
    assert (versions["mindcv"], versions["mindspore"]) == (mindcv.__version__, ms.__version__)
    assert (versions["numpy"], versions["python"]) == (np.__version__, platform.python_version())
    assert start["device"] == ms.get_context("device_target") and start["num_processes"] == 2
    assert start["time"].endswith("+00:00")
    assert start["machine"]["kernels"] == status().instruction_set


def test_describe_machine_reads_proc_and_names_neither_host_nor_user(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some Processor 9000\n")
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:       2097152 kB\n")
    machine = describe_machine(tmp_path)
    assert machine["processor"] == "Some Processor 9000" and machine["memory_mib"] == 2048
    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert machine.keys() == {"processor", "cores", "memory_mib", "system", "kernels"}
    words = json.dumps(machine).replace('"', " ").split()
    assert socket.gethostname() not in words and getpass.getuser() not in words
    assert describe_machine(tmp_path / "none")["memory_mib"] is None


def test_git_revision_names_the_commit_and_whether_files_were_changed(tmp_path):
    package = tmp_path / "mindcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_revision(package) is None
    git(tmp_path, "init", "-q")
    assert git_revision(package) is None, "the repository does not track the package"
    git(tmp_path, "add", "mindcv")
    git(tmp_path, "commit", "-qm", "first")
    expected = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "new.txt").write_text("files that git does not track change nothing")
    assert git_revision(package) == {"revision": expected, "has_changes": False}
    (package / "__init__.py").write_text("1\n")
    assert git_revision(package) == {"revision": expected, "has_changes": True}


def test_git_revision_is_none_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert git_revision(tmp_path) is None
