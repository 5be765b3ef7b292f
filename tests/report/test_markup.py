"""Tests of HTML elements: everything that is text is escaped."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mindcv.report.markup import Markup, element, joined, picture_uri, shown_size, table


def test_element_escapes_text_and_attributes():
    found = element("p", "<b> & 'x'", title='a "quote" <i> & more', class_="c")
    assert found == ('<p title="a &quot;quote&quot; &lt;i&gt; &amp; more" class="c">&lt;b&gt; &amp; \'x\'</p>')


def test_element_keeps_markup_and_leaves_none_out():
    assert element("div", element("b", "<"), None, 3, hidden=None) == "<div><b>&lt;</b>3</div>"
    assert joined([Markup("<i></i>"), "<i>"]) == "<i></i>&lt;i&gt;"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x00b", "a\\x00b"), ("\u202eab", "\\u202eab"), ("caf\udce9", "caf\\udce9"), ("é ü", "é ü")],
)
def test_element_shows_letters_that_have_no_form_as_escapes(text, shown):
    assert element("td", text) == f"<td>{shown}</td>"
    assert f'title="{shown}"' in element("td", title=text)


def test_table_escapes_cells_and_scrolls():
    found = table(("a&b",), [("<script>",)])
    assert found.startswith('<div class="scroll"><table>') and "<td>&lt;script&gt;</td>" in found and "a&amp;b" in found


def test_picture_uri_holds_a_reduced_jpeg():
    pixels = np.full((60, 120, 3), (200, 30, 30), np.uint8)
    uri = picture_uri(Image.fromarray(pixels), 40)
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (40, 20) and image.format == "JPEG"
        assert np.abs(np.asarray(image, int) - (200, 30, 30)).max() <= 4


def test_shown_size_has_a_unit_in_which_the_number_says_something():
    sizes = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 20_480: "20.5 kB", 999_400: "999 kB", 999_700: "1.0 MB"}
    sizes |= {14_800_000: "14.8 MB", 123_456_789: "123 MB", 2_640_000_000: "2.6 GB"}
    assert {size: shown_size(size) for size in sizes} == sizes
