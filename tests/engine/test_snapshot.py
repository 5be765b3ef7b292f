"""Snapshots are read completely or refused, and the newest one is found."""

import errno
import hashlib
import json
import os

import numpy as np
import pytest

from mindcv.convert import write_safetensors
from mindcv.engine import SnapshotWriter
from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import SUFFIX, RunDescription, Snapshot, find_newest, read_snapshot, write_snapshot
from mindcv.utils.errors import CheckpointError, UserError

ARRAYS = {"w": np.float32([[1.5, -2.0], [0.0, np.inf]]), "count": np.array(7, np.int32), "none": np.zeros((0, 3))}


def snapshot(started=1.0, step=1, is_done=False, place=(1, 1)):
    """Return a snapshot whose values are hard to write as text."""
    config = {"rate": 0.1 + 0.2, "nan": float("nan"), "name": "grün", "list": [1, None]}
    progress = RunProgress(9, 900, 4, *place, global_step=step, is_epoch_done=is_done)
    return Snapshot(ARRAYS, RunDescription(started, config), progress, {"Callback": {"best": 0.5}})


def write(folder, name, *args):
    path = folder / f"{name}{SUFFIX}"
    write_snapshot(path, snapshot(*args))
    return path


def test_snapshot_round_trip_keeps_arrays_and_record(tmp_path):
    found = read_snapshot(write(tmp_path, "a"))
    arrays = found.arrays
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
    assert repr(found.record) == repr(snapshot().record) and found.folder == tmp_path
    assert os.listdir(tmp_path) == [f"a{SUFFIX}"]


def test_snapshot_is_readable_by_the_safetensors_package(tmp_path):
    found = pytest.importorskip("safetensors.numpy").load_file(write(tmp_path, "a"))
    assert found.keys() == ARRAYS.keys() and found["count"] == 7
    np.testing.assert_array_equal(found["w"], ARRAYS["w"])


def test_read_snapshot_refuses_a_file_with_any_flipped_bit(tmp_path):
    """Whichever bit of the file is flipped, the error names the file."""
    path = write(tmp_path, "a")
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=f"'{path}'"):
            read_snapshot(path)
    path.write_bytes(whole)
    read_snapshot(path)


def test_read_snapshot_refuses_a_truncated_or_extended_file(tmp_path):
    path = write(tmp_path, "a")
    whole = path.read_bytes()
    for size in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=f"'{path}'"):
            read_snapshot(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match=f"'{path}'"):
        read_snapshot(path)


def test_read_snapshot_refuses_a_changed_record(tmp_path):
    """The digest covers the record, too: the changed number of steps is still valid JSON."""
    path = write(tmp_path, "a")
    path.write_bytes(path.read_bytes().replace(b'\\"global_step\\": 1', b'\\"global_step\\": 2'))
    with pytest.raises(CheckpointError, match="is damaged: its digest does not match its contents"):
        read_snapshot(path)


def test_read_snapshot_reads_and_checks_a_snapshot_of_version_0_1_0(tmp_path):
    """That version stored its digest in another entry of the metadata. The test computes the digest in the same way."""
    texts = {"mindcv_metadata": "{}", "mindcv_run": json.dumps(snapshot().record)}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(ARRAYS):
        array = np.ascontiguousarray(ARRAYS[name])
        digest.update(f"\n{name} {array.dtype.str} {ARRAYS[name].shape}\n".encode())
        digest.update(array.data)
    path = tmp_path / f"a{SUFFIX}"
    pytest.importorskip("safetensors.numpy").save_file(ARRAYS, path, {**texts, "sha256": digest.hexdigest()})
    assert repr(read_snapshot(path).record) == repr(snapshot().record)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="is damaged: its digest"):
        read_snapshot(path)


def test_read_snapshot_refuses_a_field_of_another_version(tmp_path):
    record = snapshot().record
    record["state"]["num_moons"] = 3
    write_safetensors(tmp_path / f"a{SUFFIX}", ARRAYS, {"mindcv_run": json.dumps(record)})
    with pytest.raises(CheckpointError, match="was written by another version of mindcv"):
        read_snapshot(tmp_path / f"a{SUFFIX}")


def test_read_snapshot_refuses_files_that_are_not_snapshots(tmp_path):
    write_safetensors(tmp_path / "weights.safetensors", {"w": np.zeros(2)}, {"sha256": hashlib.sha256().hexdigest()})
    with pytest.raises(CheckpointError, match="weights.safetensors' holds no run to resume"):
        read_snapshot(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="gone.*does not exist"):
        read_snapshot(tmp_path / f"gone{SUFFIX}")


def test_find_newest_finds_the_newest_snapshot_by_its_contents(tmp_path):
    assert find_newest(tmp_path) is None and find_newest(tmp_path / "gone") is None
    # The names do not matter: the last one in the alphabet is the oldest.
    for name, *age in (("d", 1.0, 900, True), ("c", 2.0, 4), ("b", 2.0, 8), ("a", 2.0, 8, True)):
        path = write(tmp_path, name, *age)
        assert find_newest(tmp_path)[0] == path
    for newest in "abc":
        assert find_newest(tmp_path)[0].name == f"{newest}{SUFFIX}"
        (tmp_path / f"{newest}{SUFFIX}").unlink()


def test_find_newest_names_and_skips_damaged_snapshots(tmp_path, capsys):
    good, cut, flipped = (write(tmp_path, name, 1.0, step) for name, step in (("a", 1), ("b", 2), ("c", 3)))
    cut.write_bytes(cut.read_bytes()[:-1])
    changed = bytearray(flipped.read_bytes())
    changed[-1] ^= 1
    flipped.write_bytes(changed)
    path, found = find_newest(tmp_path)
    assert path == good and found.progress.global_step == 1 and found.arrays["count"] == 7
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: not used: ") for line in lines)
    assert str(cut) in lines[0] and f"'{flipped}' is damaged: its digest" in lines[1]

    good.write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"none of the 3 files \*{SUFFIX} in '{tmp_path}' is whole"):
        find_newest(tmp_path)


# Which files are kept


def names(folder):
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.iterdir())


def test_snapshot_writer_keeps_the_newest_two(tmp_path):
    files, kept = SnapshotWriter(tmp_path, "m"), []
    for place in ((1, 5), (2, 1), (2, 1), (2, 3), (2, 5)):
        assert files.save(snapshot(place=place)).name == f"m-{place[0]}_{place[1]}{SUFFIX}"
        kept.append(names(tmp_path))
    assert kept == [["m-1_5"], ["m-1_5", "m-2_1"], ["m-1_5", "m-2_1"], ["m-2_1", "m-2_3"], ["m-2_3", "m-2_5"]]


def test_snapshot_writer_removes_snapshots_of_earlier_processes_after_its_second(tmp_path):
    """Until the second snapshot, the earlier files may be the only complete ones. Files of other models are kept."""
    for name in ("m-1_1", "m-1_2", "mm-1_1", "other-1_1"):
        write(tmp_path, name)
    (tmp_path / "m-1_1.ckpt").write_bytes(b"weights")
    files = SnapshotWriter(tmp_path, "m")
    files.save(snapshot(place=(1, 3)))
    assert {"m-1_1", "m-1_2", "m-1_3"} < set(names(tmp_path))
    files.save(snapshot(place=(1, 4)))
    assert names(tmp_path) == ["m-1_1.ckpt", "m-1_3", "m-1_4", "mm-1_1", "other-1_1"]


def test_snapshot_writer_loses_no_file_when_the_disk_is_full(tmp_path, monkeypatch):
    """The error may come from the write or from the sync, where some file systems report it first."""
    files = SnapshotWriter(tmp_path, "m")
    files.save(snapshot(place=(1, 1)))
    files.save(snapshot(place=(1, 2)))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for place in ("mindcv.utils.files.os.fsync", "mindcv.convert.safetensors_file.np.ascontiguousarray"):
        with monkeypatch.context() as patch:
            if "fsync" not in place:
                digest = "0" * 64
                patch.setattr("mindcv.convert.safetensors_file.digest_of", lambda *args, digest=digest: digest)
            patch.setattr(place, full)
            with pytest.raises(UserError, match=f"^cannot save '.*m-1_3{SUFFIX}': No space left on device"):
                files.save(snapshot(place=(1, 3)))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_snapshot_writer_removes_an_old_snapshot_only_after_writing_the_next(tmp_path, monkeypatch):
    files, seen = SnapshotWriter(tmp_path, "m"), []
    files.save(snapshot(place=(1, 1)))
    files.save(snapshot(place=(1, 2)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda side, path: (seen.append(len(names(tmp_path))), replace(side, path)))
    files.save(snapshot(place=(1, 3)))
    assert seen == [3], "the old ones and the side file"
    assert names(tmp_path) == ["m-1_2", "m-1_3"]
