"""Files are whole or not there."""

import os
import stat

import pytest

from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_path, atomic_write_text, ensure_writable_dir


def test_the_name_changes_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "result.json"
    with atomic_path(path) as side:
        side.write_text("all of it")
        assert not path.exists() and side.parent == path.parent and side.suffix == ".json"
    assert path.read_text() == "all of it"
    assert os.listdir(path.parent) == ["result.json"]


def test_a_failing_block_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(path) as side:
        side.write_text("hal")
        raise RuntimeError("disk")
    assert os.listdir(tmp_path) == ["result.txt"] and path.read_text() == "old"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "x") as side:
            os.chmod(side, 0o400)  # MindSpore's writer does that
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_the_bytes_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda side, path: (calls.append("replace"), replace(side, path)))
    atomic_write_text(tmp_path / "x.txt", "x")
    side, renamed, folder = calls
    assert os.path.basename(side).startswith(".x.") and renamed == "replace" and folder == str(tmp_path)


def test_text_is_utf8(tmp_path):
    atomic_write_text(tmp_path / "x.txt", "Grün\n")
    assert (tmp_path / "x.txt").read_bytes() == b"Gr\xc3\xbcn\n"


def test_writable_dir(tmp_path):
    made = ensure_writable_dir(tmp_path / "a" / "b")
    assert made.is_dir() and not list(made.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write to folder '.*file/below': Not a directory"):
        ensure_writable_dir(tmp_path / "file" / "below")
