"""The logger of the package. It writes plain lines to standard error.

Each warning starts with "warning: ", as each error of a script starts with "error: ".
"""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

__all__ = ["counted", "logger"]


class _Formatter(logging.Formatter):
    """Formatter that puts the level before the message, unless the message is only information."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {line}"


class _TqdmHandler(logging.Handler):
    """Handler that writes above the progress bar if there is one, and writes an ordinary line otherwise."""

    def emit(self, record: logging.LogRecord) -> None:
        # sys.stderr is looked up for each line, because tests and notebooks replace it.
        tqdm.write(self.format(record), file=sys.stderr)


logger = logging.getLogger("mindcv")
if not logger.handlers:
    _handler = _TqdmHandler()
    _handler.setFormatter(_Formatter())
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1: "1 epoch", "2 epochs", "3 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
