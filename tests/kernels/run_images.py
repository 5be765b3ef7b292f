"""Compare the image kernels of one instruction set with Pillow and NumPy, bit for bit, in a separate process.

python run_images.py LIBRARY SEED; MINDCV_KERNELS_ISA names the instruction set. Prints the numbers of comparisons.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from mindcv.kernels import images, library
from mindcv.kernels.images import Side

# Pixels at most: of the sides of images of which every few are one pixel wide, of middling ones, of large ones.
SIZES = ((1, 9), (1, 70), (20, 600))


def picture(rng, width, height, channels):
    """Return an image of noise, or of black and white pixels only, where interpolation overshoots."""
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    if rng.random() < 0.3:
        pixels = (pixels > 127).astype(np.uint8) * 255
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def raw(image):
    """Return the pixels in the form that the kernels take."""
    values = image.tobytes("raw", "RGBX" if image.mode == "RGB" else "L")
    return np.frombuffer(values, np.uint8).reshape(image.height, image.width, -1)


def amid_others(rng, pixels):
    """Return the same pixels as a part of a larger image, so that there are gaps between rows."""
    (top, bottom), (left, right) = rng.integers(0, 5, (2, 2))
    larger = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), constant_values=255)
    return larger[top : top + pixels.shape[0], left : left + pixels.shape[1]]


def as_pillow_has_it(image, found):
    return found[:, :, :3] if image.mode == "RGB" else found[:, :, 0]


def in_order(image, size, resample, down_first):
    """Resize one side after the other, each by a call of Pillow that resizes only this side."""
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
    """Resize images so large that a weight with a wrong last bit, which changes few pixels, is found."""
    for new_size in ((150, 131), (97, 350), (500, 90)):
        image = picture(rng, 400, 400, 3)
        sides = [Side(400, new, 0, new) for new in new_size]
        for name in images.FILTERS:
            expected = np.asarray(in_order(image, new_size, Image.Resampling[name.upper()], False))
            found = images.resize(raw(image), name, *sides, False)
            np.testing.assert_array_equal(found[:, :, :3], expected, f"{name} {new_size}")


def part(rng, length):
    start = int(rng.integers(length))
    return start, int(rng.integers(1, length - start + 1))


def check_resize(rng):
    """Resize whole images and reversed parts of images, with both orders of the two sides."""
    count = 0
    for number in range(240):
        size, new_size = lengths(rng, number)
        image = picture(rng, *size, 1 if number % 4 == 0 else 3)
        pixels = raw(image) if number % 2 else amid_others(rng, raw(image))
        for name in images.FILTERS:
            down_first = bool(rng.integers(2))
            expected = np.asarray(in_order(image, new_size, Image.Resampling[name.upper()], down_first))
            sides = [Side(old, new, 0, new) for old, new in zip(size, new_size)]
            found = images.resize(pixels, name, *sides, down_first)
            np.testing.assert_array_equal(as_pillow_has_it(image, found), expected, f"{name} {size} {new_size}")
            (left, columns), (top, rows) = (part(rng, length) for length in new_size)
            flips = rng.integers(2, size=2).astype(bool).tolist()
            sides = Side(size[0], new_size[0], left, columns, flips[0]), Side(size[1], new_size[1], top, rows, flips[1])
            found = images.resize(pixels, name, *sides, down_first)
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
                found = images.affine(raw(image), matrix, bool(is_cubic), fill)
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


def check_look_up(rng):
    """Compare look-up tables with the indexing of NumPy."""
    count = 0
    for number in range(60):
        channels = 1 if number % 4 == 0 else 3
        image = picture(rng, *rng.integers(1, 70, 2).tolist(), channels)
        tables = rng.integers(0, 256, (channels, 256), np.uint8)
        found = as_pillow_has_it(image, images.look_up(raw(image), tables))
        values = np.asarray(image)
        expected = tables[np.arange(3), values] if channels == 3 else tables[0, values]
        np.testing.assert_array_equal(found, expected)
        count += 1
    return count


def check_enhancements(rng):
    """Enhance small images, which consist of their border, and large ones, with factors inside and outside of 0..1."""
    count = 0
    for number in range(80):
        image = picture(rng, *rng.integers(1, (5, 90)[number % 2], 2).tolist(), 1 if number % 4 == 0 else 3)
        for factor in (0.0, 1.0, *rng.uniform([0, 0, 1, -1], [1, 0.2, 3, 0]).tolist()):
            expected = np.asarray(ImageEnhance.Sharpness(image).enhance(factor))
            np.testing.assert_array_equal(as_pillow_has_it(image, images.sharpen(raw(image), factor)), expected)
            if image.mode == "RGB":
                expected = np.asarray(ImageEnhance.Color(image).enhance(factor))
                np.testing.assert_array_equal(as_pillow_has_it(image, images.saturate(raw(image), factor)), expected)
            count += 1
    return count


def check_blur(rng):
    """Compare the blur of every possible sum of nine values with the rounded quotient."""
    for total in range(13 * 255 + 1):
        around, middle = total, 0
        while around > 8 * 255:
            around, middle = around - 5, middle + 1
        values = np.zeros((3, 3), np.uint8)
        values.flat[[0, 1, 2, 3, 5, 6, 7, 8]] = [around * (i + 1) // 8 - around * i // 8 for i in range(8)]
        values[1, 1] = middle
        found = images.sharpen(np.ascontiguousarray(values[:, :, None]), 0.0)[1, 1, 0]
        assert found == (2 * total + 13) // 26, total
    return 1


def check_mix(rng):
    """Compare mixing with the steps of NumPy, each of which rounds. The last pairs mix an image with itself."""
    count = 0
    for number in range(60):
        shape = (int(rng.integers(1, 4)), *rng.integers(1, 30, 2).tolist())
        image, partner = rng.standard_normal((2, *shape), np.float32)
        if number % 10 == 0:
            partner.flat[0], image.flat[-1] = np.inf, -0.0
        if number >= 50:
            partner = image
        shares = rng.random(2, np.float32) if number < 50 else rng.random(1, np.float32).repeat(2)
        expected = []
        for one, other, share in ((image, partner, shares[0]), (partner, image, shares[1])):
            mixed = one.copy()
            mixed *= share
            mixed += other * (np.float32(1) - share)
            expected.append(mixed)
        images.mix(image, partner, *shares)
        assert [image.tobytes(), partner.tobytes()] == [mixed.tobytes() for mixed in expected]
        count += 1
    return count


if __name__ == "__main__":
    path, seed = sys.argv[1:]
    library._find = lambda: Path(path)  # not the installed one
    rng = np.random.default_rng(int(seed))
    check_weights(rng)
    checks = (check_resize, check_affine, check_planes, check_mix, check_look_up, check_enhancements, check_blur)
    sys.stdout.write(" ".join(str(check(rng)) for check in checks))
