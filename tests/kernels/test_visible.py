"""The block of FCMAE on visible patches gives the same bits with any number of threads."""

import numpy as np
import pytest
from library_process import process_of

from mindcv.utils.random import stream

SHAPES = [(3, 2, 2, 8, 24), (2, 2, 2, 1, 136)]  # images, rows and columns of patches, cells, channels


def block_arguments(shape, is_over_batch):
    n, s, t, side, c = shape
    rng = stream(n, c)
    mask = (rng.random((n, s, t)) < 0.6).astype(np.float32)
    mask[:, 0, 0] = 0
    shapes = [
        (c, 1, 7, 7),
        (c,),
        (c,),
        (c,),
        (4 * c, c),
        (4 * c,),
        (1, 1, 1, 4 * c),
        (1, 1, 1, 4 * c),
        (c, 4 * c),
        (c,),
    ]
    weights = [(0.2 * rng.standard_normal(each)).astype(np.float32) for each in shapes]
    x, dout = rng.standard_normal((2, n * s * t, side, side, c)).astype(np.float32)
    return [x, mask, np.float32([is_over_batch]), *weights], dout, int((mask == 0).sum())


def run(library, shape, is_over_batch, threads):
    """Return the output of the block and the gradients, of the visible patches only."""
    inputs, dout, count = block_arguments(shape, is_over_batch)
    (n, *_, c), x = shape, inputs[0]
    cells = x.size // c
    saved = [x.shape, (cells,), (*x.shape[:-1], 4 * c), (n, 4 * c)]
    call = process_of(*library).run
    (((out, *kept), _),) = call([("VisibleBlockV2Saving", inputs, [x.shape, *saved])], threads)
    grads = [a.shape for a in (x, *inputs[3:])]
    (((dx, *others), _),) = call([("VisibleBlockV2Grad", [*inputs, dout, *kept], grads)], threads)
    return [out[:count], dx[:count], *others]


@pytest.mark.parametrize("is_over_batch", [False, True], ids=["sample", "batch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_visible_block_gives_the_same_bits_with_any_number_of_threads(library, shape, is_over_batch):
    first, *others = (run(library, shape, is_over_batch, threads) for threads in (1, 2, 3))
    for other in others:
        for found, expected in zip(other, first):
            np.testing.assert_array_equal(found, expected)
