"""The manager keeps the checkpoints of its policy, and no checkpoint is ever written in part."""

import json
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


@pytest.fixture
def weights(network):
    """Return the weights of `network` by name."""
    return {"weight": network.weight, "bias": network.bias}


def files(folder):
    return sorted(os.listdir(folder))


def test_checkpoint_manager_names_the_file_by_epoch_and_step_and_saves_weights_and_metadata(tmp_path, network, weights):
    manager = CheckpointManager(tmp_path, "convnext_tiny")
    path = manager.save(weights, {"epoch": 3}, 3, 250)
    assert path == tmp_path / "convnext_tiny-3_250.ckpt" and files(tmp_path) == [path.name]
    arrays, metadata = read_ckpt(path)
    assert metadata == {"epoch": 3}
    assert arrays.keys() == {"weight", "bias"}
    np.testing.assert_array_equal(arrays["weight"], network.weight.asnumpy())


def test_checkpoint_manager_keeps_the_newest_files_with_latest_k(tmp_path, weights):
    manager = CheckpointManager(tmp_path, "m", "latest_k", keep_max=2)
    (tmp_path / "m-0_9.ckpt").write_bytes(b"of another run")
    for epoch in range(1, 6):
        manager.save(weights, {}, epoch, 9)
    assert files(tmp_path) == ["m-0_9.ckpt", "m-4_9.ckpt", "m-5_9.ckpt"]


def test_checkpoint_manager_counts_a_file_written_again_once(tmp_path, weights):
    manager = CheckpointManager(tmp_path, "m", "latest_k", keep_max=2)
    for epoch in (1, 2, 2, 2):
        manager.save(weights, {}, epoch, 9)
    assert files(tmp_path) == ["m-1_9.ckpt", "m-2_9.ckpt"]


def test_checkpoint_manager_keeps_the_newer_of_equal_scores_with_top_k(tmp_path, weights):
    manager = CheckpointManager(tmp_path, "m", "top_k", keep_max=2)
    kept = []
    for epoch, score in enumerate([0.5, 0.3, 0.5, 0.4, 0.5, 0.7], start=1):
        manager.save(weights, {"epoch": epoch}, epoch, 1, score)
        kept.append([name for name in files(tmp_path) if "best" not in name])
    assert [[int(name[2]) for name in names] for names in kept] == [[1], [1, 2], [1, 3], [1, 3], [3, 5], [5, 6]]


@pytest.mark.parametrize("policy", ["latest_k", "top_k"])
def test_checkpoint_manager_keeps_the_best_in_a_file_of_its_own(tmp_path, network, weights, policy):
    manager = CheckpointManager(tmp_path, "m", policy, keep_max=1)
    best = []
    for epoch, score in enumerate([0.2, 0.6, 0.6, 0.1], start=1):
        network.bias.set_data(Tensor(np.full(3, epoch, np.float32)))
        manager.save(weights, {"epoch": epoch}, epoch, 1, score)
        arrays, metadata = read_ckpt(tmp_path / "m_best.ckpt")
        assert arrays["bias"][0] == metadata["epoch"]
        best.append(metadata["epoch"])
    assert best == [1, 2, 2, 2]


def test_checkpoint_manager_saves_no_best_and_refuses_top_k_without_scores(tmp_path, weights):
    CheckpointManager(tmp_path, "m").save(weights, {}, 1, 1)
    assert files(tmp_path) == ["m-1_1.ckpt"]
    with pytest.raises(UserError, match="top_k ranks by validation"):
        CheckpointManager(tmp_path, "n", "top_k").save(weights, {}, 1, 1)
    assert files(tmp_path) == ["m-1_1.ckpt"]


def test_checkpoint_manager_loses_no_file_when_a_write_fails(tmp_path, weights, monkeypatch):
    manager = CheckpointManager(tmp_path, "m", keep_max=1)
    manager.save(weights, {}, 1, 1)
    before = (tmp_path / "m-1_1.ckpt").read_bytes()

    def half(entries, name, **kwargs):
        with open(name, "wb") as file:
            file.write(before[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ms, "save_checkpoint", half)
    for epoch in (1, 2):  # over the old file, and next to it
        with pytest.raises(UserError, match=f"^cannot save '.*/m-{epoch}_1.ckpt': No space left on device"):
            manager.save(weights, {}, epoch, 1)
        assert files(tmp_path) == ["m-1_1.ckpt"] and (tmp_path / "m-1_1.ckpt").read_bytes() == before


def test_checkpoint_manager_removes_an_old_file_only_after_saving_the_next(tmp_path, weights, monkeypatch):
    manager = CheckpointManager(tmp_path, "m", keep_max=1)
    manager.save(weights, {}, 1, 1)
    save = ms.save_checkpoint

    def checked(*args, **kwargs):
        assert "m-1_1.ckpt" in files(tmp_path)
        save(*args, **kwargs)

    monkeypatch.setattr(ms, "save_checkpoint", checked)
    manager.save(weights, {}, 2, 1)
    assert files(tmp_path) == ["m-2_1.ckpt"]


def test_checkpoint_manager_refuses_wrong_options(tmp_path):
    for wrong, sentence in [
        ({"policy": "top"}, r"policy 'top' is not known.*latest_k, top_k"),
        ({"policy": None}, "policy must be one of the strings 'latest_k', 'top_k', got None"),
        ({"keep_max": 0}, "keep_max must be a whole number of at least 1, got 0"),
        ({"keep_max": 1.5}, "keep_max must be a whole number of at least 1, got 1.5"),
        ({"folder": None}, r"folder must be a path \(a string or a pathlib.Path\), got None"),
        ({"model_name": 3}, "model_name must be a string, got 3"),
    ]:
        with pytest.raises(UserError, match=f"^{sentence}"):
            CheckpointManager(**{"folder": tmp_path, "model_name": "m", **wrong})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_checkpoint_manager_refuses_to_save_weights_that_are_not_finite(tmp_path, network, weights, bad):
    manager = CheckpointManager(tmp_path, "m", keep_max=1)
    manager.save(weights, {}, 1, 1, 0.5)
    network.bias.set_data(Tensor(np.float32([0, bad, 0])))
    with pytest.raises(UserError, match="weight bias holds NaN or infinity"):
        manager.save(weights, {}, 2, 1, 0.9)
    assert files(tmp_path) == ["m-1_1.ckpt", "m_best.ckpt"]


@pytest.mark.parametrize("policy", ["latest_k", "top_k"])
def test_checkpoint_manager_continues_after_restore_as_without_interruption(tmp_path, weights, policy):
    """The files and the best score belong to the run, whichever process wrote them."""
    folders, scores = [tmp_path / "one", tmp_path / "two"], [0.5, 0.9, 0.1, 0.6, 0.7]
    for folder in folders:
        folder.mkdir()
    whole, part = (CheckpointManager(folder, "m", policy, keep_max=2) for folder in folders)
    for epoch, score in enumerate(scores, start=1):
        whole.save(weights, {"epoch": epoch}, epoch, 1, score)
    for epoch, score in enumerate(scores[:3], start=1):
        part.save(weights, {"epoch": epoch}, epoch, 1, score)
        if epoch == 2:
            saved = json.loads(json.dumps(part.saved()))  # epoch 3 came after it, and comes again
    resumed = CheckpointManager(folders[1], "m", policy, keep_max=2)
    resumed.restore(saved)
    for epoch, score in enumerate(scores[2:], start=3):
        resumed.save(weights, {"epoch": epoch}, epoch, 1, score)
    assert files(folders[0]) == files(folders[1]) and resumed.saved() == whole.saved()
    for name in files(folders[0]):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert read_ckpt(folders[1] / "m_best.ckpt")[1] == {"epoch": 2}


def test_checkpoint_manager_saves_the_best_between_two_saves(tmp_path, weights):
    manager = CheckpointManager(tmp_path, "m")
    for epoch, score in enumerate([0.2, 0.9, None, 0.9], start=1):
        manager.save_best(weights, {"epoch": epoch}, epoch, score)
    assert files(tmp_path) == ["m_best.ckpt"] and read_ckpt(tmp_path / "m_best.ckpt")[1] == {"epoch": 2}
    assert (manager.best_epoch, manager.best_score) == (2, 0.9)


def test_checkpoint_manager_refuses_a_best_with_weights_that_are_not_finite(tmp_path, network, weights):
    manager = CheckpointManager(tmp_path, "m")
    network.weight.set_data(Tensor(np.full((3, 4), np.nan), ms.float32))
    with pytest.raises(UserError, match="weight"):
        manager.save_best(weights, {}, 1, 0.5)
    assert files(tmp_path) == [] and manager.best_score is None


@pytest.fixture
def moved(tmp_path, weights):
    """Return a manager that continues a run in a new folder."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    before = CheckpointManager(tmp_path / "old", "m")
    before.save(weights, {"epoch": 1}, 1, 1, 0.9)
    manager = CheckpointManager(tmp_path / "new", "m")
    manager.restore(json.loads(json.dumps(before.saved())))
    return manager


def test_checkpoint_manager_copies_the_best_when_the_run_moves_to_another_folder(tmp_path, moved, weights):
    moved.take_best_from(tmp_path / "old")
    moved.save(weights, {"epoch": 2}, 2, 1, 0.5)
    assert files(tmp_path / "new") == ["m-2_1.ckpt", "m_best.ckpt"]
    assert read_ckpt(tmp_path / "new" / "m_best.ckpt")[1] == {"epoch": 1} and moved.best_epoch == 1
    assert files(tmp_path / "old") == ["m-1_1.ckpt", "m_best.ckpt"]


def test_checkpoint_manager_warns_and_chooses_a_new_best_when_the_old_one_is_missing(tmp_path, moved, weights, capsys):
    (tmp_path / "old" / "m_best.ckpt").unlink()
    moved.take_best_from(tmp_path / "old")
    assert "m_best.ckpt', the best checkpoint of the resumed run, is gone" in capsys.readouterr().err
    moved.save(weights, {"epoch": 2}, 2, 1, 0.5)
    assert read_ckpt(tmp_path / "new" / "m_best.ckpt")[1] == {"epoch": 2}


def test_checkpoint_manager_does_not_count_files_of_another_folder(tmp_path, weights):
    """The two files that the run keeps are both in the old folder."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    before = CheckpointManager(tmp_path / "old", "m", "top_k", keep_max=2)
    for epoch, score in ((1, 0.8), (2, 0.9)):
        before.save(weights, {}, epoch, 1, score)
    manager = CheckpointManager(tmp_path / "new", "m", "top_k", keep_max=2)
    manager.restore(before.saved())
    for epoch, score in ((3, 0.1), (4, 0.2)):
        manager.save(weights, {}, epoch, 1, score)
    assert files(tmp_path / "new") == ["m-3_1.ckpt", "m-4_1.ckpt"]


def test_checkpoint_manager_restores_a_run_whose_best_epoch_was_not_saved(tmp_path):
    manager = CheckpointManager(tmp_path, "m")
    manager.restore({"best_score": 0.5, "kept": []})
    assert (manager.best_score, manager.best_epoch) == (0.5, None)
