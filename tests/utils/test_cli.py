"""How scripts end."""

import signal

import pytest

from mindcv.utils.cli import run_script, show_and_stop
from mindcv.utils.errors import CheckpointError, ConfigError, Interrupted


def raiser(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (ConfigError(["lr: too low", "opt: unknown"]), 2, "error: lr: too low\nerror: opt: unknown\n"),
        (CheckpointError("'a.ckpt' is damaged"), 1, "error: 'a.ckpt' is damaged\n"),
        (FileNotFoundError(2, "No such file", "x.txt"), 1, "error: [Errno 2] No such file: 'x.txt'\n"),
        (KeyboardInterrupt(), 130, "stopped: by Ctrl-C\n"),
        (Interrupted(signal.SIGTERM, "by SIGTERM after step 3"), 143, "stopped: by SIGTERM after step 3\n"),
        (Interrupted(signal.SIGINT, "by SIGINT after step 3"), 130, "stopped: by SIGINT after step 3\n"),
    ],
)
def test_a_users_mistake_is_a_line(error, status, lines, capsys):
    with pytest.raises(SystemExit) as end:
        run_script(raiser(error))
    assert end.value.code == status
    assert capsys.readouterr() == ("", lines)


def test_success_is_zero(capsys):
    with pytest.raises(SystemExit) as end:
        run_script(lambda: None)
    assert end.value.code == 0 and capsys.readouterr() == ("", "")


def test_what_is_shown_is_the_end(capsys):
    with pytest.raises(SystemExit) as end:
        run_script(lambda: show_and_stop("a table"))
    assert end.value.code == 0 and capsys.readouterr() == ("a table\n", "")


@pytest.mark.parametrize("error", [ZeroDivisionError(), ValueError("no user's mistake"), KeyError("x")])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_script(raiser(error))
