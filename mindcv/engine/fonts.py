"""Text in pictures: fonts that have its letters, whatever language they are of.

Decision 0003 says how a missing letter is recognised.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Optional

from PIL import ImageDraw, ImageFont

from mindcv.utils.logger import logger

__all__ = ["TextPainter", "font_file_for", "printable"]

_FOLDERS = {
    "linux": (
        os.path.join("/usr", "share", "fonts"),
        os.path.join("/usr", "local", "share", "fonts"),
        "~/.local/share/fonts",
        "~/.fonts",
    ),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts",),
}
_SUFFIXES = (".ttf", ".otf", ".ttc")
# Parts of the names of fonts that have many letters; those are tried first.
_RICH = (
    "dejavusans.",
    "notosans-regular",
    "notosanscjk",
    "sourcehansans",
    "wqy",
    "droidsansfallback",
    "arialuni",
    "msyh",
)
_missing: list[str] = []  # the letter that the warning was about
_NO_LETTER = "\U0010ffff"  # never assigned: a font draws its box for missing letters


def printable(text: str) -> str:
    """`text` on one line: control characters, and bytes of file names that are not text, become escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text.encode("utf-8", "backslashreplace").decode()
    )


class TextPainter:
    """Draws lines of text, each letter in the first font that has it.

    The fonts are DejaVu Sans, which comes with matplotlib, and then those of the system. A letter that none of them has
    is drawn as a box, and one warning tells so.

    Args:
        size: of the letters, in pixels.
    """

    def __init__(self, size: int):
        self.size = size

    def width(self, text: str) -> float:
        """Width of `text` in pixels."""
        return sum(font.getlength(part) for font, part in self._runs(text))

    def shortened(self, text: str, width: float, keep_end: bool = False) -> str:
        """`text`, with an ellipsis for its end when it is wider than `width` pixels; for its middle with `keep_end`."""
        if self.width(text) <= width:
            return text
        for kept in range(len(text) - 1, 0, -1):
            tail = kept // 2 if keep_end else 0
            cut = f"{text[: kept - tail]}...{text[len(text) - tail :]}"
            if self.width(cut) <= width:
                return cut
        return "..."

    def draw(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: str) -> None:
        """Draw `text` with its upper left corner at `place`."""
        x, y = place
        y += self._font(None).getmetrics()[0]  # all fonts stand on one line, whatever their heights are
        for font, part in self._runs(text):
            draw.text((x, y), part, font=font, fill=fill, anchor="ls")
            x += font.getlength(part)

    def _runs(self, text: str) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
        for file, letters in groupby(text, font_file_for):
            yield self._font(file), "".join(letters)

    def _font(self, file: Optional[str]) -> ImageFont.FreeTypeFont:
        return _load(file or _first_font(), self.size)


@cache
def font_file_for(letter: str) -> Optional[str]:
    """The first font that has `letter`, or None for the default font. White space is in any font."""
    if letter.isspace() or unicodedata.combining(letter):
        return None
    if _has(_first_font(), letter):
        return None
    for file in _system_fonts():
        if _has(file, letter):
            return file
    _warn_of_missing_letter(letter)
    return None


def _warn_of_missing_letter(letter: str) -> None:
    if not _missing:  # one warning, however many letters are missing
        _missing.append(letter)
        logger.warning(
            "no font of this machine has the letter '%s' (%s): it is drawn as a box, and others may be; install a font "
            "that has it, such as Noto Sans CJK for Chinese, Japanese and Korean",
            letter,
            unicodedata.name(letter, f"U+{ord(letter):04X}"),
        )


@cache
def _first_font() -> Optional[str]:
    """matplotlib's DejaVu Sans, else that of the system, else None: the small font that Pillow brings along."""
    package = find_spec("matplotlib")
    if package is not None and package.origin:
        file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return str(file)
    return next((file for file in _system_fonts() if os.path.basename(file).lower() == "dejavusans.ttf"), None)


@cache
def _system_fonts() -> tuple[str, ...]:
    found = []
    for folder in _FOLDERS.get(sys.platform, _FOLDERS["linux"]):
        for path, _, names in os.walk(os.path.expanduser(folder)):
            found += [os.path.join(path, name) for name in names if name.lower().endswith(_SUFFIXES)]
    return tuple(sorted(found, key=_rank))


def _rank(file: str) -> tuple[int, str]:
    name = os.path.basename(file).lower()
    return next((place for place, part in enumerate(_RICH) if part in name), len(_RICH)), file


def _has(file: Optional[str], letter: str) -> bool:
    """Whether the font draws `letter` otherwise than a letter that it does not have."""
    try:
        font = _load(file, 16)
        mask, missing = font.getmask(letter), _box_of(file)
    except OSError:  # a font of bitmaps in other sizes, or a damaged file
        return False
    return (mask.size, bytes(mask)) != missing


@cache
def _box_of(file: Optional[str]) -> tuple[tuple[int, int], bytes]:
    mask = _load(file, 16).getmask(_NO_LETTER)
    return mask.size, bytes(mask)


@cache
def _load(file: Optional[str], size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
