"""Tests of the pixels of Pillow images, shared and copied: they are equal, and live as long as they are referenced."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from PIL import Image

from mindcv.data import pillow_memory
from mindcv.data.pillow_memory import pixels_of

SIZES = [(1, 1), (7, 5), (5, 7), (64, 3), (500, 375)]
shares = hasattr(Image.Image, "__arrow_c_array__")


def picture(rng, width, height, mode):
    return Image.frombytes(mode, (width, height), rng.bytes(width * height * len(mode)))


def assert_pixels(array, image):
    assert array.shape == (image.height, image.width, {"RGB": 4, "L": 1}[image.mode]) and array.dtype == np.uint8
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array[:, :, : len(image.mode)], np.asarray(image).reshape(*array.shape[:2], -1))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_of_returns_the_pixels(mode, size, rng):
    image = picture(rng, *size, mode)
    for made in (image, image.crop((0, 0, (size[0] + 1) // 2, size[1])), image.transpose(Image.Transpose.ROTATE_90)):
        assert_pixels(pixels_of(made), made)


@pytest.mark.skipif(not shares, reason="this version of Pillow does not share its pixels")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_of_shares_the_memory_of_the_image(mode, monkeypatch, rng):
    monkeypatch.setattr(Image.Image, "tobytes", None)
    image = picture(rng, 9, 4, mode)
    pixels = pixels_of(image)
    assert not pixels.flags.writeable
    image.putpixel((8, 3), 77 if mode == "L" else (77, 78, 79))
    assert pixels[3, 8, 0] == 77


def test_pixels_of_outlives_the_image(rng):
    image = picture(rng, 300, 200, "RGB")
    expected, pixels = np.asarray(image).copy(), pixels_of(image)[50:, 20:]
    del image
    gc.collect()
    others = [Image.new("RGB", (300, 200), (number, 0, 0)) for number in range(20)]
    np.testing.assert_array_equal(pixels[:, :, :3], expected[50:, 20:])
    del others


@pytest.mark.parametrize("what", ["older", "aligned", "in pieces", "odd"])
def test_pixels_of_copies_when_pillow_cannot_share(what, monkeypatch, rng):
    image = picture(rng, 11, 6, "RGB")
    if what == "older":
        monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)
    elif what == "aligned":
        monkeypatch.setattr(Image.core, "get_alignment", lambda: 32)
    elif what == "in pieces":
        old = Image.core.get_block_size()
        try:
            Image.core.set_block_size(4096)
            image = picture(rng, 200, 90, "RGB")
        finally:
            Image.core.set_block_size(old)
    else:  # simulates a version of Pillow with another layout of pixels
        monkeypatch.setattr(pillow_memory._ArrowArray, "length", 5)
    calls = []
    tobytes = Image.Image.tobytes
    monkeypatch.setattr(Image.Image, "tobytes", lambda *args: calls.append(args) or tobytes(*args))
    pixels = pixels_of(image)
    assert len(calls) == 1
    monkeypatch.undo()
    assert_pixels(pixels, image)
    assert pixels.ndim == 3
