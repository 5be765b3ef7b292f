"""Standard output and standard error whose reader has gone: a closed pipe, a closed terminal."""

from __future__ import annotations

import os
import select
import sys
from typing import TextIO

__all__ = ["gone_streams", "silence"]


def gone_streams() -> list[TextIO]:
    """Standard output and standard error, as far as they are a pipe or a terminal that nobody reads any more."""
    return [stream for stream in (sys.stdout, sys.stderr) if _is_reader_gone(stream)]


def silence(stream: TextIO) -> None:
    """Have what is written to `stream` from now on disappear, instead of raising an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_reader_gone(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError, ValueError):  # no poll on this system; no file, as in a notebook; closed
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))
