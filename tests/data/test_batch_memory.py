"""Memory of batches is used again when nothing refers to it, and never before."""

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


def test_arrays_are_new_float32_of_the_shape_and_writable():
    memory = BatchMemory()
    arrays = [filled(memory, number) for number in range(3)]
    for number, array in enumerate(arrays):
        assert array.shape == SHAPE and array.dtype == np.float32
        assert array.flags.writeable and array.flags.c_contiguous and place(array) % 64 == 0
        assert (array == number).all(), "arrays that are all in use share memory"


def test_memory_is_used_again_for_batches_as_large_or_smaller():
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


# What may still hold on to a batch when its array is gone.
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
def test_what_anything_still_refers_to_does_not_change(name):
    memory = BatchMemory()
    array = filled(memory, 7)
    holder = HOLDERS[name](array)
    before = contents(holder)
    del array
    others = [filled(memory, number) for number in (1, 2, 3)]
    assert contents(holder) == before
    del others, holder
    assert len(memory._free) >= 3


def test_many_threads_never_share_memory():
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


def test_arrays_outlive_what_made_them():
    memory = BatchMemory()
    array = filled(memory, 5)
    del memory
    assert (array == 5).all()


@pytest.mark.parametrize("processes", [False, True])
def test_a_loaders_batches_stay_as_they_were_given(processes, monkeypatch):
    """Some kept, some dropped, some kept in part, as users do."""
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
    assert len(set(places)) < len(places) == 15, "no memory was used again"
    for number, images in kept:
        first = 4 * number + (number % 3 == 1)
        for row, image in enumerate(images):
            np.testing.assert_array_equal(image[0], dataset.read(first + row)[0])
