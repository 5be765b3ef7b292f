"""What the scripts have in common: how they end."""

from __future__ import annotations

import gc
import io
import sys
from typing import Callable, NoReturn, TextIO

from mindcv.utils.errors import ConfigError, Interrupted, UserError

__all__ = ["run_script", "show_and_stop"]


def run_script(main: Callable[[], None]) -> None:
    """Run `main` and leave with a status: 0; 2 for wrong options; 1 for what else a user can mend; 130 for Ctrl-C; 143
    for SIGTERM, where that ended it in order.

    A user's mistake is told in a line each, without a traceback; any other exception keeps its traceback.
    """
    status = 0
    _escape_unprintable(sys.stdout)
    try:
        main()
    except ConfigError as error:
        status = _tell(2, *error.problems)
    except (UserError, OSError) as error:
        status = _tell(1, str(error))
    except Interrupted as error:
        status = _tell(error.status, str(error), kind="stopped")
    except KeyboardInterrupt:
        status = _tell(130, "by Ctrl-C", kind="stopped")
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


def _tell(status: int, *messages: str, kind: str = "error") -> int:
    for message in messages:
        print(f"{kind}: {message}", file=sys.stderr)
    return status
