"""Being told to stop: the step under way is finished, and the run is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Optional

from mindcv.utils.logger import logger

__all__ = ["SIGNALS", "Interruption"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Which signal asked the process to stop: `signal`, None so far.

    Once MindSpore has run a graph it makes a SIGTERM of each Ctrl-C, behind Python's back: that is what is noted then.
    """

    def __init__(self) -> None:
        self.signal: Optional[signal.Signals] = None
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the block runs, the first SIGTERM or Ctrl-C is noted; the second does what it does elsewhere.

        In a thread other than the main one, where Python allows no handlers, nothing is noted.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            self._stop_listening()

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self.signal = signal.Signals(number)
        self._stop_listening()
        logger.warning("%s: finishing this step, then saving; once more stops at once", self.signal.name)

    def _stop_listening(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
