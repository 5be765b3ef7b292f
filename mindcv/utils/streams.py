"""Handles standard output and standard error after their reader, a pipe or a terminal, has been closed."""

from __future__ import annotations

import os
import select
import sys
from typing import TextIO

__all__ = ["gone_streams", "silence"]


def gone_streams() -> list[TextIO]:
    """Return those of standard output and standard error that are a closed pipe or a closed terminal."""
    return [stream for stream in (sys.stdout, sys.stderr) if _is_reader_gone(stream)]


def silence(stream: TextIO) -> None:
    """Discard everything that is written to `stream` from now on, instead of raising errors."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_reader_gone(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (
        AttributeError,
        OSError,
        ValueError,
    ):  # the system has no poll, the stream is no file (as in a notebook), or it is closed
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))
