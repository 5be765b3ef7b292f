"""Tests of shared blocks: arrays keep their block, and a block is used again when they are gone."""

from __future__ import annotations

import mmap
import os

import mindspore as ms
import numpy as np
import pytest

from mindcv.data.shared_blocks import BlockWriter, Place, SharedBlocks

SHAPE = (4, 3, 5, 6)
UNIT = mmap.ALLOCATIONGRANULARITY  # blocks are multiples of it


def written(blocks, size, *items):
    """Return a block and the items of a batch as a worker writes them, by a mapping of its own."""
    block = blocks.take(size)
    writer = BlockWriter(mmap.mmap(blocks.file, block.size, offset=block.offset))
    return block, [writer.placed(item) for item in items]


def filled(blocks, value):
    block, items = written(blocks, 4096, np.full(SHAPE, value, np.float32))
    return blocks.items(block, items)[0]


HOLDERS = {
    "array": lambda array: array,
    "view": lambda array: array[1:][:, 0],
    "buffer": memoryview,
    "dlpack": np.from_dlpack,
    "tensor from numpy": ms.Tensor.from_numpy,
    "slice of a tensor": lambda array: ms.Tensor.from_numpy(array)[1:],
}


@pytest.mark.parametrize("name", HOLDERS)
def test_blocks_are_kept_as_long_as_something_references_them(name):
    blocks = SharedBlocks()
    array = filled(blocks, 7)
    holder = HOLDERS[name](array)
    del array
    others = [filled(blocks, value) for value in (1, 2)]
    assert (np.array(holder.asnumpy() if hasattr(holder, "asnumpy") else holder) == 7).all()
    assert [other.max() for other in others] == [1, 2]
    del others, holder
    assert sorted(block.offset for block in blocks._free) == [0, UNIT, 2 * UNIT]
    assert filled(blocks, 3).max() == 3
    assert len(blocks._free) == 3, "another block was made"


def test_arrays_outlive_the_blocks():
    blocks = SharedBlocks()
    array, file = filled(blocks, 5), blocks.file
    del blocks
    assert (array == 5).all()
    with pytest.raises(OSError):
        os.fstat(file)


def test_batches_keep_types_shapes_and_items_of_any_kind():
    blocks = SharedBlocks()
    images = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12)
    items = [images, images[:, ::2], np.arange(3, dtype=np.int32), np.zeros((2, 0), np.float32), "text", None]
    block, placed = written(blocks, 4096, *items)
    assert [isinstance(item, Place) for item in placed] == [True] * 4 + [False] * 2
    results = blocks.items(block, placed)
    for result, item in zip(results[:4], items):
        assert result.dtype == item.dtype
        np.testing.assert_array_equal(result, item)
    assert results[4:] == ["text", None]
    assert results[2].base is None and results[0].base is not None, "only the small array is copied"


def test_arrays_that_do_not_fit_are_passed_as_they_are():
    blocks = SharedBlocks()
    large = np.zeros(UNIT, np.uint8)
    block, placed = written(blocks, UNIT, np.ones(UNIT - 96, np.uint8), large)
    assert isinstance(placed[0], Place) and placed[1] is large
    assert len(blocks.items(block, placed)[0]) == UNIT - 96


def test_a_writer_makes_arrays_in_the_block_until_it_is_full():
    blocks = SharedBlocks()
    block = blocks.take(4096)
    writer = BlockWriter(block.memory)
    first, second = writer.empty((10, 50)), writer.empty((UNIT,))
    first[...] = 3
    assert writer.placed(first) == Place(0, (10, 50), "<f4")
    assert first.__array_interface__["data"][0] % 64 == 0 and second.flags.owndata
    assert bytes(block.memory[:4]) == np.float32(3).tobytes()


def test_larger_blocks_take_the_place_of_small_ones():
    blocks = SharedBlocks()
    blocks.give_back(blocks.take(100))
    assert blocks.take(UNIT).offset == 0
    blocks.give_back(blocks.take(100))
    assert blocks.take(UNIT + 1).offset == 2 * UNIT and not blocks._free
    assert blocks.store(b"paths") == (4 * UNIT, 5)
