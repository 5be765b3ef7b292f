"""How scripts end."""

import pytest

from mindcv.utils.cli import run_script
from mindcv.utils.errors import CheckpointError, ConfigError


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
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
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


@pytest.mark.parametrize("error", [ZeroDivisionError(), ValueError("no user's mistake"), KeyError("x")])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_script(raiser(error))
