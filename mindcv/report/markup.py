"""HTML elements. All text is escaped, unless it is markup already."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any, Union

from PIL import Image

from mindcv.engine.fonts import printable

__all__ = ["Markup", "data_uri", "element", "joined", "picture_uri", "shown_size", "table"]

_VOID = ("br", "circle", "img", "line", "meta", "path", "polyline", "rect")


class Markup(str):
    """Text that is HTML, which is not escaped again."""


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Return an element with its children. Children that are not markup become escaped text; None is left out.

    Args:
        name: name of the element.
        *children: markup, text or numbers.
        **attributes: attributes. `class_` stands for class, and `_` for `-`. None leaves an attribute out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>" if name in ("br", "img", "meta") else f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Markup:
    """Return markup and texts one after another. Texts are escaped; None is left out."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(printable(str(child)), quote=False)
            for child in children
            if child is not None
        )
    )


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], class_: str = "") -> Markup:
    """Return a table in a box that scrolls sideways, so that a wide table does not widen the page."""
    cells = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    header = element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
    return element("div", element("table", header, element("tbody", *cells), class_=class_ or None), class_="scroll")


def data_uri(content: bytes, media_type: str) -> str:
    """Return the address that holds the content of a file itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture_uri(image: Image.Image, max_side: Union[int, None] = None, quality: int = 88) -> str:
    """Return a picture as a JPEG in a data URI, reduced so that no side is longer than `max_side`."""
    image = image.convert("RGB")
    if max_side is not None:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return data_uri(file.getvalue(), "image/jpeg")


def shown_size(num_bytes: int) -> str:
    """Return a size in words, such as "20 kB" or "14.8 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= 0.9995 * factor:
            number = num_bytes / factor
            return f"{number:.0f} {unit}" if number >= 99.95 else f"{number:.1f} {unit}"
    return f"{num_bytes} bytes"
