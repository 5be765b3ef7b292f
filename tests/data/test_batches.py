"""Tests of where batches are made: in their own memory, and in the memory that worker processes share."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from PIL import Image

from mindcv.data import create_dataset, create_loader
from mindcv.data.batches import EpochView, _Processes
from mindcv.data.transforms import Decode, ToArray
from mindcv.utils.errors import UserError


def folder_of(tmp_path, sizes):
    (tmp_path / "train/a").mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (10 * i, 0, 0)).save(tmp_path / f"train/a/{i:02d}.png")
    return create_dataset("", tmp_path, shuffle=False)


def loader_of(dataset, batch_size, **options):
    options = {"transform": [Decode(), ToArray()], "python_multiprocessing": True, **options}
    return create_loader(dataset, batch_size, num_parallel_workers=2, **options)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)


def reds(batches):
    return [(images[:, 0] / 10).reshape(len(images), -1).max(1).tolist() for images, _ in batches]


def test_prefetch_does_not_overwrite_batches_of_processes(tmp_path):
    """All of more batches than shared slots are kept, and none is overwritten."""
    loader = loader_of(folder_of(tmp_path, [(8, 6)] * 23), 2)
    batches = list(loader.batches())
    assert reds(batches) == [[i, i + 1] for i in range(0, 22, 2)] + [[22]]
    assert all(images.shape[1:] == (3, 6, 8) and images.dtype == np.float32 for images, _ in batches)
    assert all(images.flags.writeable for images, _ in batches)


def test_prefetch_passes_images_of_processes_in_shared_memory(tmp_path):
    view = EpochView(loader_of(folder_of(tmp_path, [(8, 6)] * 4), 2).source.maker)
    assert view.count_values() == 2 * 3 * 6 * 8
    workers = _Processes(view, 2)
    with workers.executor:
        place, images, labels = workers.submit(1).result()
        assert (place, images, labels.tolist()) == (1, (2, 3, 6, 8), [0, 0])
        assert workers._slots[1].reshape(images)[:, 0, 0, 0].tolist() == [20, 30]
        assert not workers._slots[0].any()


def test_workers_do_not_inherit_the_handler_of_sigterm(tmp_path):
    """The handler of a training process would keep a SIGTERM from ending its workers."""

    def told(image):
        is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        return np.full((1, 2, 2), is_default, np.float32)

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        (images, _), *_ = loader_of(folder_of(tmp_path, [(8, 6)] * 2), 2, transform=told).batches()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert images.all()


def test_prefetch_reports_a_worker_process_that_was_killed(tmp_path):
    here = os.getpid()

    def killed(image):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((1, 2, 2), np.float32)

    with pytest.raises(UserError, match="a data-loader process was ended from outside"):
        list(loader_of(folder_of(tmp_path, [(8, 6)] * 2), 2, transform=killed).batches())


def test_prefetch_passes_images_that_do_not_fit_through_the_pipe(tmp_path):
    """With one image per batch, sizes may differ. A batch that does not fit into its slot goes through the pipe."""
    sizes = [(8, 6), (4, 2), (30, 20), (8, 6), (3, 50), (1, 1)]
    batches = list(loader_of(folder_of(tmp_path, sizes), 1).batches())
    assert [images.shape for images, _ in batches] == [(1, 3, height, width) for width, height in sizes]
    assert reds(batches) == [[i] for i in range(6)]


def test_prefetch_starts_processes_when_the_first_batch_is_corrupt(tmp_path):
    dataset = folder_of(tmp_path, [(8, 6)] * 8)
    for i in range(3):
        (tmp_path / f"train/a/{i:02d}.png").write_bytes(b"not an image")
    loader = loader_of(dataset, 2, is_training=True, skip_corrupt=True)
    for start, expected in ((0, [[3, 3], [3, 3], [4, 5], [6, 7]]), (1, [[3, 3], [4, 5], [6, 7]])):
        assert reds(loader.batches(0, start)) == expected
    assert loader.num_corrupt == 3 + 1  # reading one image in advance is not counted


def test_prefetch_reads_nothing_for_an_empty_epoch(tmp_path):
    loader = loader_of(folder_of(tmp_path, [(8, 6)] * 4), 2)
    assert list(loader.batches(0, start=2)) == []


def test_batch_maker_lets_transforms_write_into_the_batch():
    seen = []

    class Spy(ToArray):
        def __call__(self, image, out=None):
            seen.append(out)
            return super().__call__(image, out)

    dataset = create_dataset("digits", num_samples=4, shuffle=False)
    loader = create_loader(dataset, 4, num_classes=10, transform=[Decode("L"), Spy()], num_parallel_workers=1)
    ((images, _),) = loader.batches()
    assert seen[0] is None, "the first image of a batch determines the shape"
    assert all(np.shares_memory(out, images[row]) for row, out in enumerate(seen[1:], start=1))
    for row, image in enumerate(images):
        np.testing.assert_array_equal(image[0], dataset.read(row)[0])
