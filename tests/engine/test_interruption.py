"""Signals are noted once, and then do what they did before."""

import os
import pty
import signal
import sys
import threading

import pytest

from mindcv.engine import Interruption


@pytest.fixture
def handled():
    """The signals that reach handlers set before; what was there is put back."""
    came = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in numbers}
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_noted_and_the_second_is_not(handled, capsys, number):
    interruption = Interruption()
    with interruption.listening():
        assert interruption.signal is None
        signal.raise_signal(number)
        assert interruption.signal is number and handled == []
        signal.raise_signal(number)
        assert handled == [number]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{number.name}: finishing this step, then saving; once more stops at once"


def test_sighup_is_noted_and_ends_nothing_when_it_comes_again(handled, capsys):
    """A shell whose terminal is closed sends it to its jobs, and so does the system; msrun's end sends a SIGTERM."""
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
    assert first == "SIGHUP: finishing this step, then saving"
    assert second == "SIGTERM: finishing this step, then saving; once more stops at once"


def test_sighup_that_is_ignored_stays_ignored(handled):
    """As `nohup` has it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = Interruption()
    with interruption.listening():
        signal.raise_signal(signal.SIGHUP)
    assert interruption.signal is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_lines_go_nowhere_when_the_terminal_is_closed(handled, monkeypatch):
    """An error of the terminal in the middle of a step would leave that half done."""
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


def test_afterwards_all_is_as_before(handled):
    interruption = Interruption()
    with interruption.listening():
        pass
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), interruption.listening():
        raise ZeroDivisionError
    signal.raise_signal(signal.SIGINT)
    assert handled == [signal.SIGTERM, signal.SIGINT] and interruption.signal is None


def test_a_signal_from_another_process_is_noted(handled):
    interruption, heard = Interruption(), threading.Event()
    with interruption.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        heard.wait(0.01)  # Python runs handlers between two instructions
        assert interruption.signal is signal.SIGTERM


def test_in_another_thread_nothing_is_noted(handled):
    """Python allows handlers in the main thread alone; training elsewhere works without."""
    found = []

    def listen():
        with Interruption().listening():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before]
