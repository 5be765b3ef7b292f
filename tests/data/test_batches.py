"""Tests of the batch maker and of where it makes batches."""

from __future__ import annotations

import numpy as np

from mindcv.data import create_dataset, create_loader
from mindcv.data.transforms import Decode, ToArray


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
