"""Test-time augmentation is compared with NumPy formulas on networks that are functions of arrays."""

import numpy as np
import pytest

from mindcv.engine.views import TTA_MODES, average_views, crops_per_image, start_views
from mindcv.utils.errors import UserError


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.fixture
def network(rng):
    """Return a function from images [N, C, 6, 6] to logits [N, 5] that left and right make a difference to."""
    weight = rng.standard_normal((36, 5))
    return lambda images: (images.sum(axis=1).reshape(len(images), 36) @ weight).astype(np.float32)


def logits_of_views(network, images, tta):
    return start_views(lambda view: lambda: network(view), images, tta)()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tta", TTA_MODES)
def test_average_of_views_is_the_mean_of_their_probabilities(rng, network, tta, channels):
    crops = rng.standard_normal((4, 5, channels, 6, 6)).astype(np.float32)
    given = crops if tta == "ten_crop" else crops[:, 0]
    found = softmax(average_views(logits_of_views(network, given, tta)))
    for image, probabilities in zip(crops, found):
        views = list(image) if tta == "ten_crop" else [image[0]]
        views += [view[:, :, ::-1] for view in views] if tta != "none" else []
        assert len(views) == {"none": 1, "flip": 2, "ten_crop": 10}[tta]
        expected = np.mean([softmax(network(view[None])[0]) for view in views], axis=0)
        np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_start_views_orders_crops_before_their_mirror_images(rng, network):
    crops = rng.standard_normal((2, 5, 3, 6, 6)).astype(np.float32)
    found = logits_of_views(network, crops, "ten_crop")
    assert found.shape == (10, 2, 5) and crops_per_image("ten_crop") == 5
    np.testing.assert_array_equal(found[3, 1], network(crops[1, 3][None])[0])
    np.testing.assert_array_equal(found[8, 1], network(crops[1, 3][None, ..., ::-1])[0])


def test_average_views_keeps_the_bits_of_a_single_view(rng):
    logits = rng.standard_normal((1, 4, 5)).astype(np.float32)
    found = average_views(logits)
    assert found.dtype == np.float32 and np.array_equal(found, logits[0])


def test_average_views_is_finite_where_probabilities_underflow():
    logits = np.float32([[[0, -60000]], [[0, -50000]]])
    found = average_views(logits)
    np.testing.assert_allclose(found, [[0, -50000 - np.log(2)]])


def test_start_views_refuses_images_without_crops(network):
    with pytest.raises(UserError, match=r"ten_crop needs 5 crops .*got the shape \[2, 3, 6, 6\]: give create_trans"):
        logits_of_views(network, np.zeros((2, 3, 6, 6), np.float32), "ten_crop")


def test_start_views_starts_all_views_before_it_waits_for_one(network):
    events = []

    def start(view):
        events.append("start")
        return lambda: events.append("wait") or network(view)

    finish = start_views(start, np.zeros((2, 3, 6, 6), np.float32), "flip")
    assert events == ["start", "start"] and finish().shape == (2, 2, 5)
