"""Numbers of parameters and operations are compared with sums written by hand."""

from mindcv.models.complexity import count_macs, count_parameters
from mindcv.models.convnext import ConvNeXt

DEPTHS, DIMS = (1, 2, 1, 1), (8, 16, 24, 32)


def test_count_macs_counts_products_and_norms_at_each_position():
    network = ConvNeXt(3, 5, DEPTHS, DIMS, use_grn=True, drop_path_rate=0.1)
    sides = [25, 12, 6, 3]  # of an image of 100 pixels
    expected = sides[0] ** 2 * (4 * 4 * 3 * 8 + 5 * 8)  # the stem and its norm
    for stage, (depth, dim, side) in enumerate(zip(DEPTHS, DIMS, sides)):
        if stage:
            before = DIMS[stage - 1]
            expected += sides[stage - 1] ** 2 * 5 * before + side**2 * 2 * 2 * before * dim
        expected += depth * side**2 * (7 * 7 * dim + 5 * dim + 2 * dim * 4 * dim)
    expected += 5 * 32 + 32 * 5  # the last norm and the head
    assert count_macs(network, 100) == expected


def test_count_parameters_leaves_out_the_sample_counter():
    plain, random = (ConvNeXt(3, 5, DEPTHS, DIMS, drop_path_rate=rate) for rate in (0.0, 0.1))
    assert count_parameters(plain) == count_parameters(random)
    assert sum(p.size for p in random.get_parameters()) == count_parameters(plain) + 1
