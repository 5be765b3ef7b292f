"""Tests of how the files of runs are found in a folder, removed and marked."""

from mindcv.engine import RemovalOfEarlierRun, SnapshotWriter, remove_runs
from mindcv.engine.progress import RunProgress
from mindcv.engine.run_folder import find_checkpoints, is_without_state
from mindcv.engine.snapshot import SUFFIX, RunDescription, Snapshot

OF_RUNS = ("a-1_20.ckpt", f"a-1_20{SUFFIX}", "a_best.ckpt", "b-c-10_2.ckpt")
OTHERS = ("a.ckpt", "best.ckpt", "a-1_20.txt", "a-1.ckpt", "metrics.1.csv", "notes.txt", "model.safetensors")


def fill(folder, names):
    for name in names:
        (folder / name).write_bytes(b"")


def test_find_checkpoints_finds_checkpoints_and_snapshots_of_runs(tmp_path):
    fill(tmp_path, [*OF_RUNS, *OTHERS, "metrics.csv"])
    assert [path.name for path in find_checkpoints(tmp_path)] == sorted(OF_RUNS)
    assert find_checkpoints(tmp_path / "gone") == []


def test_remove_runs_removes_only_files_of_runs(tmp_path, capsys):
    fill(tmp_path, [*OF_RUNS, *OTHERS, "metrics.csv", "learning_curve.png", "report.html"])
    remove_runs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(OTHERS)
    assert capsys.readouterr().err == f"overwrite: removed 7 files of an earlier run from '{tmp_path}'\n"
    remove_runs(tmp_path)
    assert capsys.readouterr().err == ""


def test_removal_of_earlier_run_waits_for_the_first_step_of_the_new_run(tmp_path):
    fill(tmp_path, OF_RUNS)
    callback, state = RemovalOfEarlierRun(tmp_path), RunProgress(1, 2, 4)
    callback.on_train_begin(state)
    callback.on_interrupt(state)
    assert find_checkpoints(tmp_path), "a run that fails before its first step must remove nothing"
    callback.on_step_end(state)
    assert find_checkpoints(tmp_path) == []
    fill(tmp_path, OF_RUNS[:1])
    callback.on_step_end(state)
    assert find_checkpoints(tmp_path), "these are the new run's own"


def test_snapshot_writer_marks_the_folder_until_the_first_snapshot(tmp_path):
    assert not is_without_state(tmp_path)
    files = SnapshotWriter(tmp_path, "m")
    files.begin()
    assert is_without_state(tmp_path)
    files.save(Snapshot({}, RunDescription(1.0), RunProgress(1, 2, 4)))
    assert not is_without_state(tmp_path)


def test_snapshot_writer_removes_its_mark_when_a_run_ends_before_its_first_step(tmp_path):
    files = SnapshotWriter(tmp_path, "m")
    files.begin()
    files.end_without_save()
    assert not is_without_state(tmp_path)
