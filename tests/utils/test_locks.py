"""Tests of locks on files and folders, held by this process and by others."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from mindcv.utils import locks as module
from mindcv.utils.errors import UserError
from mindcv.utils.locks import LOCK_FILE, hold_folder, holder_of, locked, release_folders

# A process that locks a file as `hold_folder` does, without this library, until it is killed.
HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(sys.argv[2], file=file, flush=True)
print("here", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _release():
    yield
    release_folders()


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLDER, tmp_path / LOCK_FILE, "process 12 on host box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def is_free(folder):
    """Return whether the lock of a folder is free, by trying to lock a newly opened file."""
    with open(folder / LOCK_FILE, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_hold_folder_names_the_process_that_holds_it(tmp_path, holder):
    assert hold_folder(tmp_path, "") == "process 12 on host box"


def test_holder_of_names_the_process_that_holds_a_folder_and_creates_nothing(tmp_path, holder):
    assert holder_of(tmp_path) == "process 12 on host box"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert holder_of(tmp_path) == "" and is_free(tmp_path)
    assert holder_of(tmp_path / "none") == "" and not (tmp_path / "none").exists()


def test_hold_folder_takes_the_folder_of_a_killed_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert hold_folder(tmp_path, "") == ""
    assert (tmp_path / LOCK_FILE).read_text() == f"process {os.getpid()} on host {socket.gethostname()}\n"
    assert not is_free(tmp_path)


def test_hold_folder_locks_until_release_folders(tmp_path):
    assert hold_folder(tmp_path, "") == hold_folder(tmp_path / ".", "") == ""
    assert not is_free(tmp_path)
    release_folders()
    assert os.listdir(tmp_path) == []
    assert is_free(tmp_path)


def test_release_folders_removes_a_new_folder_that_is_empty(tmp_path):
    for name in ("empty", "full"):
        hold_folder(tmp_path / name, "")
    (tmp_path / "full" / "file").write_text("")
    release_folders()
    assert os.listdir(tmp_path) == ["full"]


def test_hold_folder_does_not_outlast_the_process_in_a_forked_one(tmp_path):
    """A data-loader worker may still run for a moment after its parent has been killed."""
    hold_folder(tmp_path, "")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(ready[1], b"1")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    ((_, hold),) = module._holds.items()
    hold.file.close()  # this happens when a process ends
    module._holds.clear()
    try:
        assert is_free(tmp_path)
    finally:
        os.write(done[1], b"1")
        os.waitpid(child, 0)


def test_hold_folder_warns_once_when_the_file_system_has_no_locks(tmp_path, monkeypatch, capsys):
    def refuse(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert hold_folder(tmp_path, "start one run at a time") == hold_folder(tmp_path, "") == ""
    warning = f"warning: cannot lock '{tmp_path / LOCK_FILE}' (Function not implemented): start one run at a time\n"
    assert capsys.readouterr().err == warning


def test_hold_folder_refuses_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to folder"):
        hold_folder(tmp_path / "file", "")


def test_locked_gives_a_new_file_when_the_holder_removed_it(tmp_path):
    order = []

    def wait():
        with locked(tmp_path / "x") as file:
            order.append(os.fstat(file.fileno()).st_size)

    with locked(tmp_path / "x") as file:
        file.write(b"mine")
        file.flush()
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        (tmp_path / "x").unlink()
        order.append("done")
    thread.join()
    assert order == ["done", 0]
