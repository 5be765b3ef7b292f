"""Compares the image kernels of one instruction set with Pillow and NumPy, bit for bit, in a process of its own.

python run_images.py ISA SEED; prints 'skipped' when the processor has not that set, else the numbers of comparisons.
"""

import os
import sys

os.environ["MINDCV_KERNELS_ISA"] = sys.argv[1]

import numpy as np
from PIL import Image

from mindcv.kernels import images, status
from mindcv.kernels.images import Side

# Pixels at most: of the sides of images of which every few are one pixel wide, of middling ones, of large ones.
SIZES = ((1, 9), (1, 70), (20, 600))


def picture(rng, width, height, channels):
    """Noise, or nothing but black and white, which overshoots."""
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    if rng.random() < 0.3:
        pixels = (pixels > 127).astype(np.uint8) * 255
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def raw(image):
    return image.tobytes("raw", "RGBX" if image.mode == "RGB" else "L")


def as_pillow_has_it(image, found):
    return found[:, :, :3] if image.mode == "RGB" else found[:, :, 0]


def in_order(image, size, resample, down_first):
    """One side after the other, each by a call of Pillow's that has but one side to resize."""
    between = (image.width, size[1]) if down_first else (size[0], image.height)
    return image.resize(between, resample).resize(size, resample)


def lengths(rng, number):
    low, high = SIZES[number % len(SIZES)]
    width, height, new_width, new_height = np.exp(rng.uniform(np.log(low), np.log(high), 4)).astype(int).tolist()
    if number % 7 == 0:
        new_width = width
    if number % 11 == 0:
        new_height = height
    return (width, height), (new_width, new_height)


def check_weights(rng):
    """Images large enough that a weight wrong in its last bit, which moves few pixels, shows."""
    for new_size in ((150, 131), (97, 350), (500, 90)):
        image = picture(rng, 400, 400, 3)
        sides = [Side(400, new, 0, new) for new in new_size]
        for name in images.FILTERS:
            expected = np.asarray(in_order(image, new_size, Image.Resampling[name.upper()], False))
            found = images.resize(raw(image), 4, name, *sides, False)
            np.testing.assert_array_equal(found[:, :, :3], expected, f"{name} {new_size}")


def part(rng, length):
    start = int(rng.integers(length))
    return start, int(rng.integers(1, length - start + 1))


def check_resize(rng):
    """Whole images, and parts of them turned around; in both orders."""
    count = 0
    for number in range(240):
        size, new_size = lengths(rng, number)
        image = picture(rng, *size, 1 if number % 4 == 0 else 3)
        pixels, channels = raw(image), 1 if image.mode == "L" else 4
        for name in images.FILTERS:
            down_first = bool(rng.integers(2))
            expected = np.asarray(in_order(image, new_size, Image.Resampling[name.upper()], down_first))
            sides = [Side(old, new, 0, new) for old, new in zip(size, new_size)]
            found = images.resize(pixels, channels, name, *sides, down_first)
            np.testing.assert_array_equal(as_pillow_has_it(image, found), expected, f"{name} {size} {new_size}")
            (left, columns), (top, rows) = (part(rng, length) for length in new_size)
            flips = rng.integers(2, size=2).astype(bool).tolist()
            sides = Side(size[0], new_size[0], left, columns, flips[0]), Side(size[1], new_size[1], top, rows, flips[1])
            found = images.resize(pixels, channels, name, *sides, down_first)
            expected = expected[top : top + rows, left : left + columns]
            expected = expected[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
            np.testing.assert_array_equal(as_pillow_has_it(image, found), expected, f"{name} {size} {new_size} {sides}")
            count += 2
    return count


def matrices(rng, width, height):
    angle, share = rng.uniform(-3.2, 3.2), rng.uniform(-0.5, 0.5)
    cos, sin = np.cos(angle), np.sin(angle)
    yield cos, sin, rng.uniform(-9, 9), -sin, cos, rng.uniform(-9, 9)
    yield 1, share, 0, 0, 1, 0
    yield 1, 0, 0, share, 1, 0
    yield 1, 0, share * width, 0, 1, 0
    yield 1, 0, 0, 0, 1, share * height
    yield 1, 0, int(share * 9), 0, 1, int(-share * 9)
    yield 2.5, 0, 0, 0, 0.3, 0.7
    yield 1, 1, 0, 1, 1e12, 5
    yield 1e300, 1e300, 0, 0, 1, 0


def check_affine(rng):
    count = 0
    for number in range(90):
        low, high = ((1, 9), (1, 150))[number % 2]
        width, height = rng.integers(low, high, 2).tolist()
        image, fill = picture(rng, width, height, 3), tuple(rng.integers(0, 256, 3).tolist())
        for matrix in matrices(rng, width, height):
            for is_cubic, resample in enumerate((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)):
                expected = image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)
                found = images.affine(raw(image), width, height, matrix, bool(is_cubic), fill)
                message = f"{width} x {height}, {matrix}, {resample}"
                np.testing.assert_array_equal(found[:, :, :3], np.asarray(expected), message)
                count += 1
    return count


def check_planes(rng):
    count = 0
    for number in range(120):
        width, height = rng.integers(1, 40, 2).tolist()
        channels = 1 if number % 4 == 0 else 3
        image = picture(rng, width, height, channels)
        mean = rng.uniform(0, 255, channels).astype(np.float32)
        std = rng.uniform(0.1, 255, channels).astype(np.float32)
        out = np.full((channels, height, width), np.nan, np.float32)
        images.to_planes(raw(image), mean, std, out)
        values = np.asarray(image).reshape(height, width, channels).astype(np.float32)
        np.testing.assert_array_equal(out, ((values - mean) / std).transpose(2, 0, 1))
        count += 1
    return count


if __name__ == "__main__":
    isa, seed = sys.argv[1:]
    if status().instruction_set != isa:
        sys.stdout.write("skipped")
    else:
        rng = np.random.default_rng(int(seed))
        check_weights(rng)
        sys.stdout.write(f"{check_resize(rng)} {check_affine(rng)} {check_planes(rng)}")
