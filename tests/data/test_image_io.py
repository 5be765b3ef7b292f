"""Tests of decoding, compared with Pillow and with formulas."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from mindcv.data.image_io import check_header, decode, set_pixel_limit
from mindcv.utils.errors import DataError

H, W = 6, 9
COLOUR = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]
ALPHA = np.random.default_rng(1).integers(0, 256, (H, W), dtype=np.uint8)
RGBA = np.dstack([COLOUR, ALPHA])


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_decode_returns_the_pixels_of_lossless_formats(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(Image.fromarray(COLOUR), kind, **options))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), COLOUR)


def test_decode_of_jpeg_equals_pillow():
    data = encoded(Image.fromarray(COLOUR), "JPEG", quality=80)
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(Image.open(io.BytesIO(data))))


def test_decode_reads_a_cmyk_jpeg():
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95)
    direct = Image.open(io.BytesIO(data))
    assert direct.mode == "CMYK"
    cmyk = np.asarray(direct).astype(int)
    by_hand = (255 - cmyk[:, :, :3]) * (255 - cmyk[:, :, 3:]) / 255
    assert np.abs(np.asarray(decode(data)) - by_hand).max() <= 1


# Value of the EXIF tag -> sides of the picture that row 0 and column 0 of the file are, in the
# words of the standard.
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("tag", ORIENTATIONS)
def test_decode_applies_the_exif_orientation(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(Image.fromarray(COLOUR), "JPEG", quality=95, exif=exif)
    stored = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(decode(data)), ORIENTATIONS[tag](stored))


def test_decode_of_grey_gives_three_equal_channels_or_one():
    data = encoded(Image.fromarray(GREY), "PNG")
    np.testing.assert_array_equal(np.asarray(decode(data)), np.repeat(GREY[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(np.asarray(decode(data, "L")), GREY)


def test_decode_to_grey_uses_the_weights_of_bt601():
    grey = np.asarray(decode(encoded(Image.fromarray(COLOUR), "PNG"), "L"))
    assert np.abs(grey - COLOUR @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_decode_drops_alpha_and_keeps_the_colours():
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(RGBA), "PNG"))), COLOUR)
    webp = encoded(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True)
    np.testing.assert_array_equal(np.asarray(decode(webp)), COLOUR)
    grey_alpha = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA)))
    np.testing.assert_array_equal(np.asarray(decode(encoded(grey_alpha, "PNG"), "L")), GREY)


@pytest.mark.parametrize(
    "kind, transparency", [("PNG", None), ("PNG", 1), ("PNG", bytes([255, 0, 128, 7])), ("GIF", None), ("GIF", 1)]
)
def test_decode_reads_palettes(kind, transparency):
    table = np.array([[255, 0, 0], [0, 128, 0], [1, 2, 3], [9, 99, 199]], np.uint8)
    indices = np.random.default_rng(2).integers(0, 4, (H, W), dtype=np.uint8)
    image = Image.fromarray(indices, "L").convert("L")
    image.putpalette(table.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode(encoded(image, kind, **options))
    np.testing.assert_array_equal(np.asarray(decoded), table[indices])


def test_decode_reads_bilevel_images():
    bits = GREY > 127
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(bits), "PNG"), "L")), bits * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_decode_scales_16_bit_grey(kind):
    values = np.random.default_rng(3).integers(0, 65536, (H, W), dtype=np.uint16)
    data = encoded(Image.fromarray(values), kind)
    np.testing.assert_array_equal(np.asarray(decode(data, "L")), values // 256)


def test_decode_keeps_a_dark_16_bit_png_dark():
    values = np.full((H, W), 200, np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(values), "PNG"), "L")).max() == 0


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 17, 255]], np.int32), [0, 17, 255]),
        (np.array([[-5, 256, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[-1, 12.7, 255]], np.float32), [0, 12, 255]),
        (np.array([[0, 512, 65535]], np.float32), [0, 2, 255]),
    ],
)
def test_decode_scales_integers_and_floats_by_their_range(values, expected):
    assert np.asarray(decode(encoded(Image.fromarray(values), "TIFF"), "L")).tolist() == [expected]


@pytest.mark.parametrize("values", [[0, np.nan], [0, np.inf], [0, 1e6]])
def test_decode_refuses_floats_without_a_known_range(values):
    with pytest.raises(DataError, match="values"):
        decode(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_decode_returns_the_first_frame(kind):
    frames = [Image.new("RGB", (W, H), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decode(data).getcolors() == [(H * W, (255, 0, 0))]


def test_decode_accepts_uint8_arrays():
    np.testing.assert_array_equal(np.asarray(decode(COLOUR)), COLOUR)
    np.testing.assert_array_equal(np.asarray(decode(RGBA)), COLOUR)
    np.testing.assert_array_equal(np.asarray(decode(GREY, "L")), GREY)
    np.testing.assert_array_equal(np.asarray(decode(GREY[:, :, None], "L")), GREY)
    for wrong in (COLOUR.astype(np.float32), COLOUR[None], COLOUR[:, :, :2]):
        with pytest.raises(DataError, match="uint8 array of shape"):
            decode(wrong)


def test_decode_refuses_damaged_files():
    whole = {kind: encoded(Image.fromarray(COLOUR).resize((90, 60)), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF")}
    with pytest.raises(DataError, match="empty"):
        decode(b"")
    with pytest.raises(DataError, match="not an image of a known format"):
        decode(b"no image at all")
    for data in whole.values():
        decode(data)
        for share in (0.3, 0.6, 0.9):
            with pytest.raises(DataError):
                decode(data[: int(len(data) * share)])


@pytest.fixture
def pillow_limit():
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before


def test_set_pixel_limit_limits_the_size_of_images(pillow_limit):
    file = io.BytesIO()
    Image.new("L", (40, 25)).save(file, "PNG")
    for limit in (1000, 1001, 0):
        set_pixel_limit(limit)
        assert decode(file.getvalue()).size == (40, 25)
    set_pixel_limit(998)
    message = r"it has 1,000 pixels, more than 998; --max_image_pixels sets the limit, and 0 removes it"
    with pytest.raises(DataError, match=message):
        decode(file.getvalue())
    file.seek(0)
    with pytest.raises(DataError, match=message):
        check_header(file)


def test_check_header_reads_only_the_header():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 60), np.uint8)).save(file, "JPEG")
    check_header(io.BytesIO(file.getvalue()[:-300]))
    for content, reason in ((b"", "the file is empty"), (b"GIF89", "it is not an image of a known format")):
        with pytest.raises(DataError, match=reason):
            check_header(io.BytesIO(content))
