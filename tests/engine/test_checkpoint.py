"""Which checkpoints are kept, and that none is ever half there."""

import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.convert import read_ckpt
from mindcv.engine import CheckpointManager
from mindcv.utils.errors import UserError


@pytest.fixture
def network():
    return nn.Dense(4, 3)


def files(folder):
    return sorted(os.listdir(folder))


def test_names_and_contents(tmp_path, network):
    manager = CheckpointManager(tmp_path, "convnext_tiny")
    path = manager.save(network, {"epoch": 3}, 3, 250)
    assert path == tmp_path / "convnext_tiny-3_250.ckpt" and files(tmp_path) == [path.name]
    arrays, metadata = read_ckpt(path)
    assert metadata == {"epoch": 3}
    np.testing.assert_array_equal(arrays["weight"], network.weight.asnumpy())


def test_latest_k(tmp_path, network):
    manager = CheckpointManager(tmp_path, "m", "latest_k", keep_max=2)
    (tmp_path / "m-0_9.ckpt").write_bytes(b"of another run")
    for epoch in range(1, 6):
        manager.save(network, {}, epoch, 9)
    assert files(tmp_path) == ["m-0_9.ckpt", "m-4_9.ckpt", "m-5_9.ckpt"]


def test_top_k_keeps_the_newer_of_equals(tmp_path, network):
    manager = CheckpointManager(tmp_path, "m", "top_k", keep_max=2)
    kept = []
    for epoch, score in enumerate([0.5, 0.3, 0.5, 0.4, 0.5, 0.7], start=1):
        manager.save(network, {"epoch": epoch}, epoch, 1, score)
        kept.append([name for name in files(tmp_path) if "best" not in name])
    assert [[int(name[2]) for name in names] for names in kept] == [[1], [1, 2], [1, 3], [1, 3], [3, 5], [5, 6]]


@pytest.mark.parametrize("policy", ["latest_k", "top_k"])
def test_the_best_is_kept_besides(tmp_path, network, policy):
    manager = CheckpointManager(tmp_path, "m", policy, keep_max=1)
    best = []
    for epoch, score in enumerate([0.2, 0.6, 0.6, 0.1], start=1):
        network.bias.set_data(Tensor(np.full(3, epoch, np.float32)))
        manager.save(network, {"epoch": epoch}, epoch, 1, score)
        arrays, metadata = read_ckpt(tmp_path / "m_best.ckpt")
        assert arrays["bias"][0] == metadata["epoch"]
        best.append(metadata["epoch"])
    assert best == [1, 2, 2, 2]


def test_without_scores_there_is_no_best(tmp_path, network):
    CheckpointManager(tmp_path, "m").save(network, {}, 1, 1)
    assert files(tmp_path) == ["m-1_1.ckpt"]
    with pytest.raises(UserError, match="top_k ranks by validation"):
        CheckpointManager(tmp_path, "n", "top_k").save(network, {}, 1, 1)
    assert files(tmp_path) == ["m-1_1.ckpt"]


def test_a_failed_write_loses_nothing(tmp_path, network, monkeypatch):
    manager = CheckpointManager(tmp_path, "m", keep_max=1)
    manager.save(network, {}, 1, 1)
    before = (tmp_path / "m-1_1.ckpt").read_bytes()

    def half(entries, name, **kwargs):
        with open(name, "wb") as file:
            file.write(before[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ms, "save_checkpoint", half)
    for epoch in (1, 2):  # over the old file, and next to it
        with pytest.raises(OSError, match="No space left"):
            manager.save(network, {}, epoch, 1)
        assert files(tmp_path) == ["m-1_1.ckpt"] and (tmp_path / "m-1_1.ckpt").read_bytes() == before


def test_an_old_file_goes_only_when_the_next_is_there(tmp_path, network, monkeypatch):
    manager = CheckpointManager(tmp_path, "m", keep_max=1)
    manager.save(network, {}, 1, 1)
    save = ms.save_checkpoint

    def checked(*args, **kwargs):
        assert "m-1_1.ckpt" in files(tmp_path)
        save(*args, **kwargs)

    monkeypatch.setattr(ms, "save_checkpoint", checked)
    manager.save(network, {}, 2, 1)
    assert files(tmp_path) == ["m-2_1.ckpt"]


def test_wrong_options(tmp_path):
    with pytest.raises(UserError, match=r"ckpt_save_policy 'top' is not known.*latest_k, top_k"):
        CheckpointManager(tmp_path, "m", "top")
    with pytest.raises(UserError, match="keep_checkpoint_max must be at least 1, not 0"):
        CheckpointManager(tmp_path, "m", keep_max=0)
