"""The first signal is recorded, and the next one has its usual effect."""

import os
import pty
import signal
import sys
import threading

import pytest

from mindcv.engine import Interruption


@pytest.fixture
def handled():
    """Return the signals that reach the handlers of this fixture. It restores the original handlers afterwards."""
    came = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in numbers}
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interruption_records_the_first_signal_and_passes_on_the_second(handled, capsys, number):
    interruption = Interruption()
    with interruption.listening():
        assert interruption.signal is None
        signal.raise_signal(number)
        assert interruption.signal is number and handled == []
        signal.raise_signal(number)
        assert handled == [number]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"warning: {number.name}: finishing this step, then saving; once more stops at once"


def test_interruption_records_sighup_and_ignores_its_repetition(handled, capsys):
    """When a terminal is closed, SIGHUP comes from the shell and from the system. The end of msrun sends a SIGTERM."""
    interruption = Interruption()
    with interruption.listening():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        assert interruption.signal is signal.SIGHUP and handled == []
        signal.raise_signal(signal.SIGTERM)
        assert handled == [signal.SIGTERM]
    signal.raise_signal(signal.SIGHUP)
    assert handled == [signal.SIGTERM, signal.SIGHUP]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "warning: SIGHUP: finishing this step, then saving"
    assert second == "warning: SIGTERM: finishing this step, then saving; once more stops at once"


def test_interruption_leaves_sighup_ignored_when_it_was_ignored_before(handled):
    """`nohup` starts a program in which SIGHUP is ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = Interruption()
    with interruption.listening():
        signal.raise_signal(signal.SIGHUP)
    assert interruption.signal is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_interruption_discards_output_when_the_terminal_is_closed(handled, monkeypatch):
    """An error of the terminal in the middle of a step would leave the step incomplete."""
    keyboard, screen = pty.openpty()
    with open(screen, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        os.close(keyboard)
        with pytest.raises(OSError, match="Input/output error"):
            print("what follows would raise", file=stream, flush=True)
        interruption = Interruption()
        with interruption.listening():
            signal.raise_signal(signal.SIGHUP)
        print("a later line", file=stream, flush=True)
    assert interruption.signal is signal.SIGHUP


def test_interruption_restores_the_handlers_afterwards(handled):
    interruption = Interruption()
    with interruption.listening():
        pass
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), interruption.listening():
        raise ZeroDivisionError
    signal.raise_signal(signal.SIGINT)
    assert handled == [signal.SIGTERM, signal.SIGINT] and interruption.signal is None


def test_interruption_records_a_signal_from_another_process(handled):
    interruption, heard = Interruption(), threading.Event()
    with interruption.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        heard.wait(0.01)  # Python runs handlers between two instructions
        assert interruption.signal is signal.SIGTERM


def test_interruption_installs_no_handler_outside_the_main_thread(handled):
    """Python allows signal handlers in the main thread only. Training in another thread works without them."""
    found = []

    def listen():
        with Interruption().listening():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before]
