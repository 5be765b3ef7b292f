"""Runs the main function of a script, and ends the process with a status and without tracebacks for users' mistakes."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Callable, NoReturn, Optional, TextIO

from mindcv.utils.distributed import is_launched
from mindcv.utils.errors import ConfigError, Interrupted, UserError
from mindcv.utils.files import remove_open_side_files
from mindcv.utils.locks import release_folders
from mindcv.utils.streams import gone_streams, silence

__all__ = ["run_script", "show_and_stop"]


def run_script(main: Callable[[], None]) -> None:
    """Run `main` and end the process with a status.

    - 0: success;
    - 1: a mistake of the user other than wrong options;
    - 2: wrong options;
    - 130: Ctrl-C;
    - 141: the reader of the output has closed it (`infer.py ... | head`); nothing is printed;
    - 143: SIGTERM. After MindSpore has run a graph, it turns each Ctrl-C into a SIGTERM.

    A signal that `main` does not handle ends the process with one line. Each mistake of the user is printed as one line
    without a traceback. Any other exception keeps its traceback.
    """
    _escape_unprintable(sys.stdout)
    try:
        with _signals_reported():
            status = _status_of(main)
        sys.stdout.flush()
    except BrokenPipeError:
        gone = gone_streams()
        if not gone:
            raise
        status = 128 + signal.SIGPIPE
        for stream in gone:  # otherwise Python reports an error when it flushes them at exit
            silence(stream)
    finally:
        release_folders()
    # MindSpore's cells print errors if the interpreter destroys them at exit, so they are deleted
    # here.
    gc.collect()
    sys.exit(status)


def show_and_stop(text: str) -> NoReturn:
    """Print a text that the user requested, and end the process with status 0."""
    print(text)
    raise SystemExit(0)


def _escape_unprintable(stream: TextIO) -> None:
    """Make the stream print characters that it cannot encode, and bytes of file names that are not text, as escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # as in standard error


@contextmanager
def _signals_reported() -> Iterator[None]:
    """Inside the block, SIGTERM ends the process with a line. So does Ctrl-C in a script that handles it.

    Otherwise the process would end without a message and leave half-written side files. The handler of SIGTERM stays
    unchanged in processes of a launcher: the launcher stops them while they wait in MindSpore, where no Python handler
    runs.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    process = os.getpid()

    def end(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() == process:  # a data-loader worker inherits the handler, but must not do this
            remove_open_side_files()
            release_folders()
            with suppress(Exception):  # the signal may have interrupted a print
                sys.stdout.flush()
            cause = b"by Ctrl-C" if number == signal.SIGINT else b"by SIGTERM or Ctrl-C"
            with suppress(OSError):
                os.write(2, (b"\n" if os.isatty(2) else b"") + b"stopped: " + cause + b"\n")
        os._exit(128 + number)

    before = {}
    if is_main_thread and not is_launched():
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, end)
        # The scripts set a handler before their imports. Python's own handler, as in a notebook,
        # raises an exception and stays.
        if callable(handler := signal.getsignal(signal.SIGINT)) and handler is not signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status_of(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except ConfigError as error:
        return _report(2, *error.problems)
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and gone_streams():
            raise
        return _report(1, str(error))
    except Interrupted as error:
        return _report(error.status, str(error), kind="stopped")
    except KeyboardInterrupt:
        return _report(130, "by Ctrl-C", kind="stopped")
    return 0


def _report(status: int, *messages: str, kind: str = "error") -> int:
    for message in messages:
        print(f"{kind}: {message}", file=sys.stderr)
    return status
