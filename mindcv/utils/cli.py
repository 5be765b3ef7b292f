"""What the scripts have in common: how they end."""

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
    """Run `main` and leave with a status.

    The status is 0 for success, 2 for wrong options, 1 for other mistakes of the user, 130 for Ctrl-C, 143 for SIGTERM,
    and 141 without a word when the reader of the output has gone (`infer.py ... | head`). Once MindSpore has run a
    graph, it makes a SIGTERM of each Ctrl-C. A signal that `main` does not handle ends the process with one line.

    A user's mistake is told in a line each, without a traceback; any other exception keeps its traceback.
    """
    _escape_unprintable(sys.stdout)
    try:
        with _signals_told():
            status = _status_of(main)
        sys.stdout.flush()
    except BrokenPipeError:
        gone = gone_streams()
        if not gone:
            raise
        status = 128 + signal.SIGPIPE
        for stream in gone:  # else Python complains when it flushes them at its end
            silence(stream)
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


@contextmanager
def _signals_told() -> Iterator[None]:
    """While the block runs, SIGTERM ends the process with a line, and so does Ctrl-C in a script that handles it.

    Without this the process would end without a word, and a file that is being written would stay half written. A
    launcher ends its processes with SIGTERM while they wait in MindSpore, where no handler runs: theirs is left alone.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    process = os.getpid()

    def end(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() == process:  # and not a data-loader worker, which has the handler from its parent
            remove_open_side_files()
            release_folders()
            with suppress(Exception):  # the signal may have come in the middle of a print
                sys.stdout.flush()
            told = b"by Ctrl-C" if number == signal.SIGINT else b"by SIGTERM or Ctrl-C"
            with suppress(OSError):
                os.write(2, (b"\n" if os.isatty(2) else b"") + b"stopped: " + told + b"\n")
        os._exit(128 + number)

    before = {}
    if is_main_thread and not is_launched():
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, end)
        # The scripts set a handler before their imports; Python's own, as in a notebook, raises an exception.
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
        return _tell(2, *error.problems)
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and gone_streams():
            raise
        return _tell(1, str(error))
    except Interrupted as error:
        return _tell(error.status, str(error), kind="stopped")
    except KeyboardInterrupt:
        return _tell(130, "by Ctrl-C", kind="stopped")
    return 0


def _tell(status: int, *messages: str, kind: str = "error") -> int:
    for message in messages:
        print(f"{kind}: {message}", file=sys.stderr)
    return status
