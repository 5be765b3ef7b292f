"""Every form of a network says what is wrong when it is called with an input that it does not support."""

import os
import tempfile

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindcv.models import ConvNeXt, pack_for_inference
from mindcv.models.features import ConvNeXtFeatures
from mindcv.utils.errors import UserError

TINY = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 5}


def images(*shape, dtype=np.float32):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))


WRONG = [
    (
        images(1, 64, 64, 3),
        r"\[1, 64, 64, 3\]; it expects \[N, 3, H, W\]: move the channels to the front with ms.ops.transpose",
    ),
    (images(2, 4, 64, 64), r"\[2, 4, 64, 64\]; it expects \[N, 3, H, W\], since it was made with in_channels=3"),
    (images(2, 1, 64, 64), r"\[2, 1, 64, 64\]; it expects \[N, 3, H, W\], since it was made with in_channels=3"),
    (images(1, 3, 16, 16), "height and width of at least 32 pixels"),
    (images(1, 3, 33, 31), "height and width of at least 32 pixels"),
    (images(3, 64, 64), r"4 dimensions, \[N, 3, H, W\]; images\[None\] makes a batch"),
    (images(3), r"4 dimensions, \[N, 3, H, W\]$"),
    (images(0, 3, 64, 64), r"\[0, 3, 64, 64\]; it expects \[N, 3, H, W\] with at least one image"),
    (
        images(1, 3, 64, 64, dtype=np.int32),
        "of type int32; it expects float32: normalize them .*, and give the result as float32",
    ),
    (images(1, 3, 64, 64, dtype=np.uint8), "of type uint8; it expects float32: normalize them as in training"),
    (images(1, 3, 64, 64).astype(ms.bfloat16), "of type bfloat16, but MindSpore has no bfloat16 operators on CPU"),
    (np.zeros((1, 3, 64, 64), np.float32), r"called with a numpy.ndarray; .* ms.Tensor\(array\)"),
    ([1, 2], r"called with a list; .* ms.Tensor\(array\)"),
    (None, "called with a NoneType; it expects a MindSpore tensor"),
]


class Summed(nn.Cell):
    """A network inside another cell, as in training, so that its call is a part of a larger graph."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, x):
        return ops.sum(self.network(x))


def form_of_network(form):
    network = ConvNeXt(**TINY).set_train(form == "training")
    if form == "packed":
        return pack_for_inference(network)
    if form == "features":
        return ConvNeXtFeatures(network)
    return network


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
@pytest.mark.parametrize("form", ["plain", "training", "packed", "features"])
def test_network_says_what_is_wrong_with_its_input(kernels, mode, form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ms.set_context(mode=mode)
    network = form_of_network(form)
    for wrong, message in WRONG:
        with pytest.raises(UserError, match=message) as raised:
            network(wrong)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())  # no graph was compiled


@pytest.mark.parametrize("form", ["training", "features"])
def test_network_inside_another_graph_says_what_is_wrong(kernels, form, tmp_path, monkeypatch):
    """The check then runs during compilation. After a failed one MindSpore would write its analysis of the graph."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MS_OM_PATH", "")  # so that what the network sets is taken back after the test
    monkeypatch.delenv("MS_OM_PATH")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    ms.set_context(mode=ms.GRAPH_MODE)
    outer = Summed(form_of_network(form)).set_train(form == "training")
    for wrong, message in WRONG[1:5:3]:
        with pytest.raises(UserError, match=message):
            outer(wrong)
    assert os.listdir(tmp_path / "work") == []


def test_forward_features_checks_its_input(kernels):
    with pytest.raises(UserError, match="since it was made with in_channels=3"):
        ConvNeXt(**TINY).forward_features(images(2, 4, 64, 64))


@pytest.mark.parametrize("size", [(32, 32), (33, 63), (47, 95)])
def test_network_ignores_border_pixels_that_fill_no_patch(size, kernels):
    """The convolutions round the size down, as in the reference, so the remaining pixels do not matter."""
    network = ConvNeXt(**TINY).set_train(False)
    x = images(2, 3, *size)
    expected = network(x).asnumpy()
    height, width = (side // 4 * 4 for side in size)
    np.testing.assert_array_equal(network(x[:, :, :height, :width]).asnumpy(), expected)
    assert np.isfinite(expected).all()


def test_feature_network_needs_a_pixel_in_its_own_stages_only(kernels):
    network = ConvNeXtFeatures(ConvNeXt(**TINY).set_train(False), out_indices=[0, 1])
    assert [map.shape for map in network(images(1, 3, 8, 9))] == [(1, 8, 2, 2), (1, 16, 1, 1)]
    with pytest.raises(UserError, match="at least 8 pixels"):
        network(images(1, 3, 8, 7))


def test_network_takes_other_floats(kernels):
    network = ConvNeXt(**TINY).set_train(False)
    expected = network(images(1, 3, 64, 64)).asnumpy()
    for dtype in (ms.float16, ms.float64):
        found = network(images(1, 3, 64, 64).astype(dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found.asnumpy(), expected, atol=0.05)
