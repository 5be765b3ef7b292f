"""Files, folders and patterns name each checkpoint once, in a fixed order."""

import os

import pytest

from mindcv.convert import find_checkpoint_files
from mindcv.utils.errors import CheckpointError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    names = (
        "run/b-2_3.ckpt run/b-10_3.ckpt run/b-2_3.resume.safetensors run/metrics.csv run/.b.part-1.ckpt other/x.pth "
    )
    names += "shards/model.safetensors.index.json shards/model-1.safetensors empty/notes.txt"
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "run" / "b-2_3.ckpt")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["run"], ["run/b-10_3.ckpt", "run/b-2_3.ckpt"]),
        (["run/b-2_3.ckpt", "run"], ["run/b-2_3.ckpt", "run/b-10_3.ckpt"]),
        (["run/*"], ["run/b-10_3.ckpt", "run/b-2_3.ckpt"]),
        (["**/*.ckpt"], ["link.ckpt", "run/b-10_3.ckpt"]),
        (["other/x.pth", "link.ckpt", "run/b-2*"], ["other/x.pth", "link.ckpt"]),
        (["shards"], ["shards/model.safetensors.index.json"]),
        (["run/metrics.csv"], ["run/metrics.csv"]),
    ],
)
def test_find_checkpoint_files_lists_each_file_once(patterns, expected):
    assert find_checkpoint_files(patterns) == [os.path.normpath(path) for path in expected]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("missing.ckpt", "'missing.ckpt' names no checkpoint: a file, a folder or a glob pattern is expected"),
        ("empty", "folder 'empty' holds no checkpoint: no file name ends in .ckpt"),
        ("empty/*", r"no checkpoint is among the files that 'empty/\*' names"),
    ],
)
def test_find_checkpoint_files_names_a_pattern_without_checkpoints(pattern, message):
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint_files([pattern])
