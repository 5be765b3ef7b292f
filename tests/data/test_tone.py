"""Tests of operations by tables against the corresponding functions of Pillow, with and without kernels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mindcv.data import tone

pytestmark = pytest.mark.usefixtures("kernels")


def pictures(rng, mode):
    """Return images of noise in all or part of the range, with few and many pixels, and with one and two values."""
    channels = len(mode)
    for number in range(40):
        width, height = rng.integers(1, (5, 90)[number % 2], 2)
        low, high = np.sort(rng.integers(0, 257, 2)) if number % 3 else (0, 256)
        values = rng.integers(low, max(high, low + 1), (height, width, channels)).clip(0, 255).astype(np.uint8)
        if number % 5 == 0:
            values = np.where(values > values.mean(), 255 - number, number)
        yield Image.fromarray(values.astype(np.uint8).squeeze(2) if mode == "L" else values.astype(np.uint8))
    yield Image.new(mode, (4, 3), "white")
    yield Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3)[None]).convert(mode)


def solarize_add(image, addition):
    values = np.asarray(image).astype(int)
    return Image.fromarray(np.where(values < 128, np.minimum(values + addition, 255), values).astype(np.uint8))


FACTORS = (0, 0.1, 0.37, 0.5, 1, 1.0001, 1.44, 1.9, 2.7)
CASES = {
    "invert": (tone.invert, ImageOps.invert, [()]),
    "posterize": (tone.posterize, ImageOps.posterize, [(bits,) for bits in range(1, 9)]),
    "solarize": (tone.solarize, ImageOps.solarize, [(0,), (1,), (128,), (191.25,), (255,), (256,)]),
    "solarize_add": (tone.solarize_add, solarize_add, [(0,), (1,), (99,), (110,), (200,)]),
    "autocontrast": (tone.autocontrast, ImageOps.autocontrast, [()]),
    "equalize": (tone.equalize, ImageOps.equalize, [()]),
    "brightness": (tone.brightness, lambda i, f: ImageEnhance.Brightness(i).enhance(f), [(f,) for f in FACTORS]),
    "contrast": (tone.contrast, lambda i, f: ImageEnhance.Contrast(i).enhance(f), [(f,) for f in FACTORS]),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", CASES)
def test_tone_operations_equal_pillow(name, mode, rng):
    function, of_pillow, arguments = CASES[name]
    for image in pictures(rng, mode):
        image.info["comment"] = b"kept"
        for values in arguments:
            result, expected = function(image, *values), of_pillow(image, *values)
            assert (result.mode, result.size, result.info) == (mode, image.size, image.info)
            np.testing.assert_array_equal(np.asarray(result), np.asarray(expected), f"{name} {values}")


def test_tone_operations_do_not_change_their_input(rng):
    image = next(pictures(rng, "RGB"))
    before = image.tobytes()
    for function, _, arguments in CASES.values():
        function(image, *arguments[0])
    assert image.tobytes() == before
