"""The one logger of the package: plain lines on standard error."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

__all__ = ["counted", "logger"]


class _TqdmHandler(logging.Handler):
    """Writes above a progress bar when there is one, and as an ordinary line otherwise."""

    def emit(self, record: logging.LogRecord) -> None:
        # sys.stderr is looked up at each line: tests and notebooks replace it.
        tqdm.write(self.format(record), file=sys.stderr)


logger = logging.getLogger("mindcv")
if not logger.handlers:
    logger.addHandler(_TqdmHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def counted(number: int, noun: str) -> str:
    """A number and its noun, with the plural's s unless the number is 1: "1 epoch", "2 epochs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
