"""Tests of batch memory: it is reused when nothing references it any more, and never before."""

from __future__ import annotations

import threading

import mindspore as ms
import numpy as np
import pytest

from mindcv.data import create_dataset, create_loader
from mindcv.data.batch_memory import BatchMemory
from mindcv.data.transforms import Decode, ToArray

SHAPE = (4, 3, 5, 6)


def place(array):
    return array.__array_interface__["data"][0]


def filled(memory, value, shape=SHAPE):
    array = memory.empty(shape)
    array[...] = value
    return array


def test_empty_returns_writable_float32_arrays_that_share_no_memory():
    memory = BatchMemory()
    arrays = [filled(memory, number) for number in range(3)]
    for number, array in enumerate(arrays):
        assert array.shape == SHAPE and array.dtype == np.float32
        assert array.flags.writeable and array.flags.c_contiguous and place(array) % 64 == 0
        assert (array == number).all(), "arrays that are all in use share memory"


def test_empty_reuses_memory_for_equal_or_smaller_batches():
    memory = BatchMemory()
    array = memory.empty(SHAPE)
    first = place(array)
    for shape in (SHAPE, (2, 3, 5, 6), SHAPE, (1,), (5, 4, 3, 6)):
        del array
        array = memory.empty(shape)
        assert place(array) == first and array.shape == shape
    del array
    larger = filled(memory, 1, (40, 30, 20))
    assert larger.shape == (40, 30, 20) and (larger == 1).all()


# Objects that may still reference the memory of a batch when its array is gone.
HOLDERS = {
    "view": lambda array: array[1:],
    "view of a view": lambda array: array[1:][:, 0],
    "another shape": lambda array: array.reshape(-1).reshape(2, -1),
    "other type": lambda array: array.view(np.int32),
    "buffer": memoryview,
    "array of a buffer": lambda array: np.frombuffer(memoryview(array).cast("B"), np.float32),
    "dlpack": np.from_dlpack,
    "tensor": ms.Tensor,
    "tensor from numpy": ms.Tensor.from_numpy,
    "tensor of a view": lambda array: ms.Tensor(array[1:]),
    "sum to come": lambda array: ms.Tensor.from_numpy(array) + 1,
    "numpy of a tensor": lambda array: ms.Tensor.from_numpy(array).asnumpy(),
    "slice of a tensor": lambda array: ms.Tensor.from_numpy(array)[1:],
}


def contents(holder):
    if hasattr(holder, "asnumpy"):
        holder = holder.asnumpy()
    return np.array(holder).tobytes()


@pytest.mark.parametrize("name", HOLDERS)
def test_empty_does_not_reuse_memory_that_is_referenced(name):
    memory = BatchMemory()
    array = filled(memory, 7)
    holder = HOLDERS[name](array)
    before = contents(holder)
    del array
    others = [filled(memory, number) for number in (1, 2, 3)]
    assert contents(holder) == before
    del others, holder
    assert len(memory._free) >= 3


def test_empty_gives_threads_separate_memory():
    memory, wrong = BatchMemory(), []

    def work(value):
        for _ in range(300):
            array = filled(memory, value)
            if not (array == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(memory._free) <= 4


def test_arrays_outlive_the_batch_memory():
    memory = BatchMemory()
    array = filled(memory, 5)
    del memory
    assert (array == 5).all()


@pytest.mark.parametrize("processes", [False, True])
def test_loader_does_not_change_batches_that_are_kept(processes, monkeypatch):
    """As in a user's code, some batches are kept, some are dropped, and some are kept in part."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    dataset = create_dataset("digits", num_samples=60, shuffle=False)
    options = {"num_parallel_workers": 2, "python_multiprocessing": processes}
    loader = create_loader(dataset, 4, num_classes=10, transform=[Decode("L"), ToArray()], **options)
    kept, places = [], []
    for number, (images, _) in enumerate(loader.batches()):
        places.append(place(images))
        if number % 3 == 0:
            kept.append((number, images))
        elif number % 3 == 1:
            kept.append((number, images[1:2]))
    assert len(set(places)) < len(places) == 15, "no memory was reused"
    for number, images in kept:
        first = 4 * number + (number % 3 == 1)
        for row, image in enumerate(images):
            np.testing.assert_array_equal(image[0], dataset.read(first + row)[0])
