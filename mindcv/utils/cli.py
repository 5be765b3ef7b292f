"""What the scripts have in common: how they end."""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
from typing import Callable, NoReturn, TextIO

from mindcv.utils.errors import ConfigError, Interrupted, UserError
from mindcv.utils.locks import release_folders

__all__ = ["run_script", "show_and_stop"]


def run_script(main: Callable[[], None]) -> None:
    """Run `main` and leave with a status.

    The status is 0 for success, 2 for wrong options, 1 for other mistakes of the user, 130 for Ctrl-C, 143 for SIGTERM
    if `main` ended in order, and 141 without a word when the reader of the output has gone (`infer.py ... | head`).

    A user's mistake is told in a line each, without a traceback; any other exception keeps its traceback.
    """
    _escape_unprintable(sys.stdout)
    try:
        status = _status_of(main)
        sys.stdout.flush()
    except BrokenPipeError:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _is_reader_gone(stream)]
        if not gone:
            raise
        status = 128 + signal.SIGPIPE
        for stream in gone:  # else Python complains when it flushes them at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    finally:
        release_folders()
    # MindSpore's cells complain when the interpreter takes them down: let them go first.
    gc.collect()
    sys.exit(status)


def show_and_stop(text: str) -> NoReturn:
    """Print what the user asked to see, and leave with status 0."""
    print(text)
    raise SystemExit(0)


def _escape_unprintable(stream: TextIO) -> None:
    """Have letters that the stream's encoding lacks, and file names that are not text, printed as escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # as standard error has it


def _status_of(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except ConfigError as error:
        return _tell(2, *error.problems)
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and (_is_reader_gone(sys.stdout) or _is_reader_gone(sys.stderr)):
            raise
        return _tell(1, str(error))
    except Interrupted as error:
        return _tell(error.status, str(error), kind="stopped")
    except KeyboardInterrupt:
        return _tell(130, "by Ctrl-C", kind="stopped")
    return 0


def _is_reader_gone(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError, ValueError):  # no poll on this system; no file, as in a notebook; closed
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _tell(status: int, *messages: str, kind: str = "error") -> int:
    for message in messages:
        print(f"{kind}: {message}", file=sys.stderr)
    return status
