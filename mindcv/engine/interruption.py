"""Signals that stop a run: the current step is finished, and the run is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Optional

import numpy as np

from mindcv.utils.errors import Interrupted
from mindcv.utils.logger import logger
from mindcv.utils.streams import gone_streams, silence

__all__ = ["SIGNALS", "Interruption"]

# The last one comes when the terminal of a process is closed; Windows has no such signal.
SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_AT_ONCE = (signal.SIGTERM, signal.SIGINT)  # the second of these ends the process without saving


class Interruption:
    """Remembers the signal that asked the process to stop, in `signal`; None if there was none.

    After its first graph, MindSpore turns each Ctrl-C into a SIGTERM before Python sees it.
    """

    def __init__(self) -> None:
        self.signal: Optional[signal.Signals] = None
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember the first SIGTERM, Ctrl-C or SIGHUP that comes while the block runs.

        A second SIGTERM or Ctrl-C ends the process as usual. A second SIGHUP does not, because a closed terminal sends
        several, and a SIGTERM can follow. A process that ignores SIGHUP, as nohup makes it, continues to ignore it.

        In other threads than the main one Python allows no handlers, so no signal is remembered there.
        """
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if n in _AT_ONCE or signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            self._stop_listening(*self._before)

    def stop_validation(self, *_: np.ndarray) -> None:
        """Stop a validation if a signal has asked to. `evaluate` calls it after each batch (`on_batch`).

        Raises:
            Interrupted: a signal has.
        """
        if self.signal is not None:
            raise Interrupted(self.signal, f"by {self.signal.name} in a validation; --resume auto repeats that")

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        is_first, name = self.signal is None, signal.Signals(number).name
        if is_first:
            self.signal = signal.Signals(number)
        told = f"{name}: finishing this step, then saving"
        if number in _AT_ONCE:
            self._stop_listening(*_AT_ONCE)
            told += "; once more stops at once"
        elif not is_first:
            return
        for stream in gone_streams():
            silence(stream)
        with suppress(OSError):  # in the middle of a step, which an exception would leave half done
            logger.warning(told)

    def _stop_listening(self, *numbers: signal.Signals) -> None:
        for number in self._before.keys() & set(numbers):
            handler = self._before.pop(number)
            # None: a handler that was not set from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
