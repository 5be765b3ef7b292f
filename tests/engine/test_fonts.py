"""Pictures show each letter in a font that has it."""

from __future__ import annotations

import logging
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from mindcv.engine import fonts
from mindcv.engine.fonts import TextPainter, font_file_for, printable
from mindcv.utils.logger import logger

FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
DEJAVU = str(FOLDER / "DejaVuSans.ttf")
ROMAN = str(FOLDER / "cmr10.ttf")  # Computer Modern, which has few letters beyond ASCII


def drawn(painter, text):
    picture = Image.new("L", (200, 30), 255)
    painter.draw(ImageDraw.Draw(picture), (2, 3), text, 0)
    return np.asarray(picture)


@pytest.fixture
def few_fonts(monkeypatch):
    """Simulate a machine whose first font has few letters, and which has DejaVu Sans as well."""
    monkeypatch.setattr(fonts, "_first_font", lambda: ROMAN)
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (str(FOLDER / "missing.ttf"), DEJAVU))
    monkeypatch.setattr(fonts, "_missing", [])
    font_file_for.cache_clear()
    yield
    font_file_for.cache_clear()


def test_text_painter_draws_umlauts_and_greek_as_dejavu_does():
    """Pillow's own font draws a box for each of these letters."""
    for letter in "äÖßéğяλ":
        picture = Image.new("L", (200, 30), 255)
        font = ImageFont.truetype(DEJAVU, 13)
        ImageDraw.Draw(picture).text((2, 3 + font.getmetrics()[0]), letter, font=font, fill=0, anchor="ls")
        np.testing.assert_array_equal(drawn(TextPainter(13), letter), np.asarray(picture))


def test_text_painter_takes_each_letter_from_a_font_that_has_it(few_fonts):
    painter = TextPainter(16)
    assert [font_file_for(letter) for letter in "ab äя"] == [None, None, None, DEJAVU, DEJAVU]
    widths = [ImageFont.truetype(ROMAN, 16).getlength("ab "), ImageFont.truetype(DEJAVU, 16).getlength("яж")]
    assert painter.width("ab яж") == pytest.approx(sum(widths))
    both = drawn(painter, "ab яж")
    np.testing.assert_array_equal(both[:, : int(widths[0])], drawn(painter, "ab")[:, : int(widths[0])])
    assert (both[:, int(widths[0]) + 2 :] < 128).any()


def test_font_file_for_warns_once_of_letters_that_no_font_has(few_fonts, caplog):
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING, "mindcv"):
        assert font_file_for("\u732b") is None and font_file_for("\u72d7") is None
    logger.removeHandler(caplog.handler)
    (record,) = caplog.records
    assert "no font of this machine has the letter '\u732b' (CJK UNIFIED IDEOGRAPH-732B)" in record.getMessage()
    assert (drawn(TextPainter(16), "\u732b") < 128).any(), "a box"


def test_text_painter_shortens_at_the_end_or_in_the_middle():
    painter = TextPainter(13)
    assert painter.shortened("short", 100) == "short"
    text = "a long name of a class.jpg"
    end, middle = painter.shortened(text, 100), painter.shortened(text, 100, keep_end=True)
    assert end.startswith("a long n") and end.endswith("...") and "..." in middle and middle.endswith(".jpg")
    for cut in (end, middle):
        assert 80 < painter.width(cut) <= 100
    assert painter.shortened(text, 1) == "..."


def test_printable_escapes_control_characters_and_bytes_that_are_not_utf8():
    assert printable("Kätzchen \u732b $5") == "Kätzchen \u732b $5"
    assert printable("a\nb\t\udcff\x1b") == "a\\nb\\t\\udcff\\x1b"
