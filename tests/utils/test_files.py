"""Tests of atomic writing and of the checks that files can be written."""

import errno
import os
import stat
import threading

import pytest

from mindcv.utils.errors import UserError
from mindcv.utils.files import (
    atomic_files,
    atomic_path,
    atomic_write_text,
    ensure_writable,
    ensure_writable_dir,
    file_problem,
    folder_problem,
    remove_side_files,
)


def test_atomic_path_renames_the_file_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "result.json"
    with atomic_path(path) as side:
        side.write_text("all of it")
        assert not path.exists() and side.parent == path.parent and side.suffix == ".json"
    assert path.read_text() == "all of it"
    assert os.listdir(path.parent) == ["result.json"]


def test_atomic_path_keeps_the_old_file_when_the_block_raises(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(path) as side:
        side.write_text("hal")
        raise RuntimeError("disk")
    assert os.listdir(tmp_path) == ["result.txt"] and path.read_text() == "old"


@pytest.mark.parametrize("failing", ["the block", "open", "mkstemp", "fsync", "replace"])
def test_atomic_path_reports_a_full_disk_in_one_sentence(tmp_path, monkeypatch, failing):
    """The error may come from any call, also after MindSpore's writer has written to another name."""
    path = tmp_path / "result.ckpt"
    path.write_text("old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in (("tempfile", "mkstemp"), ("os", "fsync"), ("os", "replace")):
        if name == failing:
            monkeypatch.setattr(f"mindcv.utils.files.{module}.{name}", full)
    with pytest.raises(UserError) as raised, atomic_path(path) as side:
        side.write_text("half")
        side.with_suffix(".tmp").write_text("half")
        if failing == "the block":
            full()
        if failing == "open":
            (tmp_path / "gone" / "x").open("w")
    reason = "No such file or directory" if failing == "open" else "No space left on device"
    assert str(raised.value) == f"cannot save '{path}': {reason}; files that were saved before are complete"
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["result.ckpt"] and path.read_text() == "old"


def test_remove_side_files_removes_only_side_files(tmp_path):
    kept = {"a.ckpt", ".hidden", "a.part-1.ckpt", ".partly"}
    for name in (*kept, ".a.part-x1.ckpt", ".a.part-x1.tmp", ".metrics.part-q_z.csv"):
        (tmp_path / name).write_text("x")
    remove_side_files(tmp_path)
    assert set(os.listdir(tmp_path)) == kept


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_atomic_path_sets_the_permissions_of_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "x") as side:
            os.chmod(side, 0o400)  # as MindSpore's writer does
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_atomic_path_syncs_the_file_before_renaming_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda side, path: (calls.append("replace"), replace(side, path)))
    atomic_write_text(tmp_path / "x.txt", "x")
    side, renamed, folder = calls
    assert os.path.basename(side).startswith(".x.") and renamed == "replace" and folder == str(tmp_path)


def test_atomic_write_text_writes_utf8(tmp_path):
    atomic_write_text(tmp_path / "x.txt", "Grün\n")
    assert (tmp_path / "x.txt").read_bytes() == b"Gr\xc3\xbcn\n"


def test_ensure_writable_refuses_folders_duplicates_and_unwritable_paths(tmp_path):
    ensure_writable("", str(tmp_path / "a" / "b.csv"), "")
    assert not os.listdir(tmp_path), "a check creates nothing"
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        UserError, match="cannot write to folder '.*file': '.*file' is a file, and a folder is expected$"
    ):
        ensure_writable(str(tmp_path / "a" / "c.csv"), str(tmp_path / "file" / "d.csv"))
    with pytest.raises(UserError, match="a' is a folder|a': it is a folder"):
        ensure_writable(str(tmp_path / "a"))
    with pytest.raises(UserError, match="results/': it is a folder, but the name of a file is expected"):
        ensure_writable(f"{tmp_path}/results/")
    with pytest.raises(UserError, match="d.csv' is given for two results"):
        ensure_writable(f"{tmp_path}/d.csv", f"{tmp_path}/a/../d.csv")


def test_ensure_writable_dir_creates_the_folder(tmp_path):
    made = ensure_writable_dir(tmp_path / "a" / "b")
    assert made.is_dir() and not list(made.iterdir())
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("gone")
    for folder, reason in {
        "file": f"'{tmp_path}/file' is a file, and a folder is expected",
        "file/below/it": f"'{tmp_path}/file' is a file, and a folder is expected",
        "link": f"'{tmp_path}/link' is a link to a folder that does not exist",
        "b" * 300: "File name too long",
    }.items():
        expected = f"cannot write to folder '{tmp_path / folder}': {reason}"
        with pytest.raises(UserError) as raised:
            ensure_writable_dir(tmp_path / folder)
        assert str(raised.value) == folder_problem(tmp_path / folder) == expected
    assert folder_problem(tmp_path / "a" / "new" / "folder") == folder_problem(tmp_path / "a") == ""
    assert sorted(os.listdir(tmp_path)) == ["a", "file", "link"] and os.listdir(tmp_path / "a") == ["b"]


def test_folder_problem_names_a_place_that_takes_no_files():
    told = "cannot write to folder '/proc/a/b': no files can be created in '/proc'"
    assert folder_problem("/proc/a/b") == told and file_problem("/proc/a/b/c.csv") == told


def test_atomic_write_says_that_a_file_is_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        UserError, match=r"cannot save '.*x.txt': '.*file' is a file, and a folder is expected; files that"
    ):
        atomic_write_text(tmp_path / "file" / "x.txt", "x")


def test_atomic_path_keeps_a_link_and_replaces_the_file_that_it_points_to(tmp_path):
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    atomic_write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    assert list(tmp_path.iterdir()) and not list(tmp_path.rglob(".*"))


def test_atomic_path_writes_into_a_pipe_and_leaves_it(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    ensure_writable(str(pipe))
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    atomic_write_text(pipe, "through")
    reader.join(10)
    assert found == ["through"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_atomic_files_moves_all_files_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "model.onnx"
    for content in ("first", "second"):  # The second run replaces the files and the folder of the first one.
        with atomic_files(path) as side:
            side.write_text(content)
            side.with_name("model.data").write_text(content)
            (side.parent / "variables").mkdir(mode=0o700)
            (side.parent / "variables" / f"data_{content}").write_text(content)
            os.chmod(side, 0o400)
        assert path.read_text() == (path.parent / "model.data").read_text() == content
        assert sorted(os.listdir(path.parent)) == ["model.data", "model.onnx", "variables"]
        assert os.listdir(path.parent / "variables") == [f"data_{content}"]
        assert os.access(path, os.W_OK)


def test_atomic_files_changes_nothing_when_the_block_raises(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="wrong"), atomic_files(path) as side:
        side.write_text("new")
        side.with_name("model.data").write_text("new")
        raise RuntimeError("wrong")
    assert os.listdir(tmp_path) == ["model.onnx"] and path.read_text() == "old"


@pytest.mark.parametrize("failing", ["the block", "mkdtemp", "fsync", "replace"])
def test_atomic_files_reports_a_full_disk_in_one_sentence(tmp_path, monkeypatch, failing):
    path = tmp_path / "model.mindir"
    path.write_text("old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in (("tempfile", "mkdtemp"), ("os", "fsync"), ("os", "replace")):
        if name == failing:
            monkeypatch.setattr(f"mindcv.utils.files.{module}.{name}", full)
    with pytest.raises(UserError) as raised, atomic_files(path) as side:
        side.write_text("half")
        if failing == "the block":
            full()
    reason = "No space left on device"
    assert str(raised.value) == f"cannot save '{path}': {reason}; files that were saved before are complete"
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model.mindir"] and path.read_text() == "old"


def test_remove_side_files_removes_temporary_folders(tmp_path):
    (tmp_path / ".model.part-x1").mkdir()
    (tmp_path / ".model.part-x1" / "model.onnx").write_text("x")
    remove_side_files(tmp_path)
    assert os.listdir(tmp_path) == []
