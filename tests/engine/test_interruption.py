"""Signals are noted once, and then do what they did before."""

import os
import signal
import threading

import pytest

from mindcv.engine import Interruption


@pytest.fixture
def handled():
    """The signals that reach handlers set before; what was there is put back."""
    came = []
    before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
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
