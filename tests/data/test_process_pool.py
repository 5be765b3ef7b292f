"""Tests of data-loader processes: their memory, their errors, and how they end."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import worker_parts
from PIL import Image

from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.data.batches import BatchMaker, SampleReader
from mindcv.data.image_io import set_pixel_limit
from mindcv.data.pixel_batches import PixelBatch
from mindcv.data.process_pool import ProcessPool, why_not_picklable
from mindcv.data.transform_base import Compose
from mindcv.data.transforms import Decode, ToArray
from mindcv.kernels import is_available
from mindcv.utils.errors import UserError


def folder_of(tmp_path, sizes):
    (tmp_path / "train/a").mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (10 * i, 0, 0)).save(tmp_path / f"train/a/{i:02d}.png")
    return create_dataset("", tmp_path, shuffle=False)


def loader_of(dataset, batch_size, **options):
    options = {"transform": [Decode(), ToArray()], "python_multiprocessing": True, **options}
    return create_loader(dataset, batch_size, num_parallel_workers=2, **options)


def maker_of(transform):
    return BatchMaker(SampleReader(create_dataset("digits", num_samples=8), Compose(transform), Compose([])), 4)


def processes_of(loader):
    return loader.source.prefetcher.processes


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)


def reds(batches):
    return [(images[:, 0] / 10).reshape(len(images), -1).max(1).tolist() for images, _ in batches]


def owner_of(array):
    """Return the object whose memory an array shows."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def test_batches_of_processes_are_views_of_shared_memory_and_stay_as_they_are(tmp_path):
    """More batches are kept than are made at a time, and none is overwritten."""
    loader = loader_of(folder_of(tmp_path, [(8, 6)] * 23), 2)
    batches = list(loader.batches())
    assert reds(batches) == [[i, i + 1] for i in range(0, 22, 2)] + [[22]]
    assert all(images.shape[1:] == (3, 6, 8) and images.dtype == np.float32 for images, _ in batches)
    assert all(isinstance(owner_of(images), mmap.mmap) and images.flags.writeable for images, _ in batches)
    assert len({id(owner_of(images)) for images, _ in batches}) == 12
    assert not any(isinstance(owner_of(labels), mmap.mmap) for _, labels in batches), "labels would keep the images"
    pids = processes_of(loader).pids
    del batches
    again = loader.batches()
    places = [images.__array_interface__["data"][0] for images, _ in again]
    assert len(places) == 12 > len(set(places)), "memory is reused"
    assert processes_of(loader).pids == pids, "the processes are kept"


def test_worker_processes_are_small_and_have_the_settings_of_their_parent():
    """A worker without MindSpore starts faster, and a handler of the parent would keep a SIGTERM from ending it."""
    before, limit = signal.signal(signal.SIGTERM, lambda number, frame: None), Image.MAX_IMAGE_PIXELS
    set_pixel_limit(2**20)
    try:
        dataset = create_dataset("digits", num_samples=8)
        transform = worker_parts.facts_of_process
        (images, _), *_ = loader_of(dataset, 8, transform=transform, num_classes=10).batches()
    finally:
        signal.signal(signal.SIGTERM, before)
        Image.MAX_IMAGE_PIXELS = limit
    for facts in images[:, 0, 0]:
        facts = dict(zip(worker_parts.FACTS, facts))
        assert facts.pop("pid") != np.float32(os.getpid())
        assert facts == {
            "is_sigterm_default": 1,
            "is_sigint_ignored": 1,
            "has_mindspore": 0,
            "has_kernels": is_available(),
            "max_pixels": 2**19,
        }


UNGUARDED = """
print("the script runs")
from mindcv.data import create_dataset, create_loader, create_transforms

transform = create_transforms("digits", 12, True, in_channels=1)
dataset = create_dataset("digits", num_samples=16)
options = {"num_classes": 10, "num_parallel_workers": 2, "python_multiprocessing": True}
loader = create_loader(dataset, 4, transform=transform, **options)
print(len(list(loader.batches())), loader.source.prefetcher.processes is not None)
"""


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a single worker is a thread")
def test_scripts_need_no_main_guard_for_worker_processes(tmp_path):
    """A process of multiprocessing would run the script once more."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the script runs\n4 True\n", "")


@pytest.mark.slow
def test_transforms_in_worker_processes_can_import_the_whole_package():
    dataset = create_dataset("digits", num_samples=16)
    loader = loader_of(dataset, 2, transform=worker_parts.uses_whole_package, num_classes=10)
    assert all(images.all() for images, _ in loader.batches())


@pytest.mark.parametrize(
    "how, told",
    [
        (worker_parts.kill, "was ended by SIGKILL, as the system does when memory runs out: give a smaller [^.\\n]*"),
        (worker_parts.exit_with_status, "ended with status 3"),
    ],
)
def test_a_worker_that_ends_itself_ends_the_epoch_with_one_sentence(how, told):
    dataset = create_dataset("digits", num_samples=32)
    loader = loader_of(dataset, 2, transform=worker_parts.EndsProcess(os.getpid(), how), num_classes=10)
    with pytest.raises(UserError, match=rf"^the data-loader process \d+ {told}$") as caught:
        list(loader.batches())
    assert caught.value.__cause__ is None


def test_a_worker_that_is_killed_ends_the_epoch_and_the_next_epoch_has_others(tmp_path):
    loader = loader_of(folder_of(tmp_path, [(8, 6)] * 20), 2)
    batches = loader.batches()
    next(batches)
    pids = processes_of(loader).pids
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(UserError, match=f"data-loader process {pids[1]} was ended by SIGKILL"):
        list(batches)
    assert reds(loader.batches(1, start=8)) == [[16, 17], [18, 19]]
    assert not set(processes_of(loader).pids) & set(pids)
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # the others have ended too, and are no zombies
            os.kill(pid, 0)


def test_worker_processes_end_with_the_loader():
    loader = loader_of(create_dataset("digits", num_samples=8), 4, transform=[Decode("L"), ToArray()], num_classes=10)
    list(loader.batches())
    pids = processes_of(loader).pids
    assert len(pids) == 2
    del loader
    gc.collect()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def start_and_wait(answers):
    pool = ProcessPool(maker_of([Decode("L"), ToArray()]), 2, 1, 1 << 16)
    answers.send(pool.pids)
    time.sleep(600)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_worker_processes_end_when_their_parent_is_killed():
    answers, other = multiprocessing.Pipe()
    parent = multiprocessing.get_context("fork").Process(target=start_and_wait, args=(other,))
    parent.start()
    pids = answers.recv()
    parent.kill()
    parent.join()
    while any(is_running(pid) for pid in pids):  # a test that hangs here fails by the time limit of the suite
        time.sleep(0.01)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_batches_that_do_not_fit_into_a_block_go_through_the_pipe(tmp_path):
    """With one image per batch, sizes may differ. The first image determines the size of the blocks."""
    sizes = [(8, 6), (4, 2), (300, 200), (8, 6), (3, 500), (1, 1)]
    loader = loader_of(folder_of(tmp_path, sizes), 1)
    for _ in range(2):
        batches = list(loader.batches())
        assert [images.shape for images, _ in batches] == [(1, 3, height, width) for width, height in sizes]
        assert reds(batches) == [[i] for i in range(6)]
    assert isinstance(owner_of(batches[2][0]), mmap.mmap), "later blocks are larger"


def test_processes_start_when_the_first_batch_is_corrupt(tmp_path):
    dataset = folder_of(tmp_path, [(8, 6)] * 8)
    for i in range(3):
        (tmp_path / f"train/a/{i:02d}.png").write_bytes(b"not an image")
    loader = loader_of(dataset, 2, is_training=True, skip_corrupt=True)
    for start, expected in ((0, [[3, 3], [3, 3], [4, 5], [6, 7]]), (1, [[3, 3], [4, 5], [6, 7]])):
        assert reds(loader.batches(0, start)) == expected
    assert loader.num_corrupt == 3 + 1  # reading one image in advance is not counted


def test_no_process_starts_for_an_empty_epoch(tmp_path):
    loader = loader_of(folder_of(tmp_path, [(8, 6)] * 4), 2)
    assert list(loader.batches(0, start=2)) == [] and processes_of(loader) is None


def test_processes_hand_over_batches_of_pixels():
    dataset = create_dataset("digits", num_samples=16)
    transform = create_transforms("digits", 12, True, in_channels=1, re_prob=0.5, re_value="pixel")
    options = {"is_training": True, "mixup": 0.8, "cutmix_prob": 1.0, "num_classes": 10, "as_pixels": True}
    loaders = [
        loader_of(dataset, 8, transform=transform, python_multiprocessing=are_processes, **options)
        for are_processes in (True, False)
    ]
    batches, expected = (list(loader.batches()) for loader in loaders)
    assert len(batches) == 2 and processes_of(loaders[0]) is not None
    for batch, other in zip(batches, expected):
        assert type(batch) is type(other) is PixelBatch
        for array, same in zip(batch, other):
            assert array.dtype == same.dtype
            np.testing.assert_array_equal(array, same)
        assert isinstance(owner_of(batch.erased), mmap.mmap) and len(batch.erased) > 0


@pytest.mark.parametrize(
    "kind, expected, message",
    [
        ("keyword", UserError, "^flip: the keyword 'probe' is not known; did you"),
        ("key", KeyError, "of the user's code"),
    ],
)
def test_errors_of_worker_processes_keep_their_kind(kind, expected, message):
    loader = loader_of(create_dataset("digits", num_samples=8), 4, transform=worker_parts.Raises(kind), num_classes=10)
    with pytest.raises(expected, match=message) as caught:
        list(loader.batches())
    assert ("in __call__" in str(caught.value.__cause__)) == (kind == "key"), "a defect has a traceback"


def test_create_loader_says_what_cannot_be_copied_to_processes(monkeypatch):
    of_script = type("Squares", (), {"__module__": "__main__", "__call__": lambda self, image: image})
    monkeypatch.setattr(sys.modules["__main__"], "Squares", of_script, raising=False)
    for transform, message in (
        (lambda image: image, "a part of the data set or the transforms cannot be pickled .*lambda"),
        (of_script(), "'Squares' is defined in the script that runs, .*: move it to a module of its own"),
    ):
        loader = loader_of(create_dataset("digits", num_samples=8), 4, transform=transform, num_classes=10)
        with pytest.raises(UserError, match=message):
            next(loader.batches())
        assert why_not_picklable(maker_of([transform])) is not None


def test_a_data_set_that_no_worker_can_load_is_an_error():
    transform = worker_parts.Unpicklable()
    loader = loader_of(create_dataset("digits", num_samples=8), 4, transform=transform, num_classes=10)
    with pytest.raises(UserError, match="cannot load the data set: RuntimeError: not in this process; .*False"):
        next(loader.batches())


@pytest.mark.parametrize("policy", ["randaug-m9-mstd0.5-inc1", "autoaug", "autoaugr", "v0", "3a", "trivialaugwide"])
def test_policies_are_picklable_and_keep_their_draws(policy):
    transform = Compose(create_transforms("imagenet", 32, True, policy, re_prob=0.5))
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    copy = pickle.loads(pickle.dumps(transform))
    for seed in range(20):
        results = [each(image, np.random.default_rng(seed)) for each in (transform, copy)]
        np.testing.assert_array_equal(*results)
