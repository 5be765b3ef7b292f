"""The one logger of the package: plain lines on standard error."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

__all__ = ["logger"]


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
