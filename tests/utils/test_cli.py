"""Tests of how scripts end: status, messages, signals and closed outputs."""

import io
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from mindcv.utils.cli import run_script, show_and_stop
from mindcv.utils.errors import CheckpointError, ConfigError, Interrupted
from mindcv.utils.files import atomic_path
from mindcv.utils.locks import hold_folder


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
def test_run_script_reports_each_mistake_in_one_line(error, status, lines, capsys):
    with pytest.raises(SystemExit) as end:
        run_script(raiser(error))
    assert end.value.code == status
    assert capsys.readouterr() == ("", lines)


def test_run_script_exits_with_status_0_on_success(capsys):
    with pytest.raises(SystemExit) as end:
        run_script(lambda: None)
    assert end.value.code == 0 and capsys.readouterr() == ("", "")


def test_show_and_stop_prints_the_text_and_exits_with_status_0(capsys):
    with pytest.raises(SystemExit) as end:
        run_script(lambda: show_and_stop("a table"))
    assert end.value.code == 0 and capsys.readouterr() == ("a table\n", "")


@pytest.mark.parametrize("error", [ZeroDivisionError(), ValueError("no user's mistake"), KeyError("x")])
def test_run_script_raises_other_exceptions(error):
    with pytest.raises(type(error)):
        run_script(raiser(error))


def test_run_script_ends_quietly_when_the_reader_closes_the_output(tmp_path):
    """A pipe such as `infer.py ... | head -1` ends with status 128 + SIGPIPE and without a message."""
    code = "from mindcv.utils.cli import run_script\nrun_script(lambda: [print('line', i) for i in range(99999)])\n"
    (tmp_path / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, tmp_path / "script.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as script:
        assert script.stdout.readline() == b"line 0\n"
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == 141


def test_run_script_reports_a_broken_pipe_other_than_the_output(capsys):
    with pytest.raises(SystemExit) as end:
        run_script(raiser(BrokenPipeError(32, "Broken pipe")))
    assert end.value.code == 1 and capsys.readouterr().err == "error: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize("script", ["train", "validate", "infer"])
def test_scripts_report_ctrl_c_during_imports_in_one_line(tmp_path, script):
    """A small module stands in for MindSpore and sleeps during its import."""
    (tmp_path / "mindspore.py").write_text("import sys, time\nprint('here', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "numpy.py").write_text("import mindspore\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, Path(__file__).parents[2] / f"{script}.py"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    # A test run in the background of a shell ignores SIGINT, and a new process inherits that.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **options) as process:
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"stopped: by Ctrl-C\n"
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGTERM, 143, "stopped: by SIGTERM or Ctrl-C\n"), (signal.SIGINT, 130, "stopped: by Ctrl-C\n")],
)
def test_run_script_ends_on_a_signal_with_one_line_and_no_partial_file(tmp_path, monkeypatch, number, status, line):
    """The script runs in a forked process, because imports in a new process take seconds."""

    def main():
        print("a line of results")
        hold_folder(tmp_path / "run", "")
        with atomic_path(tmp_path / "results.json") as side:
            side.write_text("half")
            signal.raise_signal(number)

    process = os.fork()
    if not process:
        with open(tmp_path / "err", "w") as err, open(tmp_path / "out", "w") as out:
            os.dup2(err.fileno(), 2)
            monkeypatch.setattr(sys, "stdout", out)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, lambda *_: os._exit(99))  # scripts set such a handler before their imports
            try:
                run_script(main)
            finally:
                os._exit(98)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == status
    assert (tmp_path / "err").read_text() == line
    assert (tmp_path / "out").read_text() == "a line of results\n"
    assert sorted(os.listdir(tmp_path)) == ["err", "out"]


def test_run_script_restores_the_signal_handlers(monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for variables in ({}, {"MS_ROLE": "MS_WORKER"}):
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            with pytest.raises(SystemExit):
                run_script(lambda: seen.append(signal.getsignal(signal.SIGTERM)))
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert callable(seen[0]) and seen[0] is not signal.SIG_DFL
    assert seen[1] is signal.SIG_DFL, "a launcher's SIGTERM must end a process that waits in MindSpore"


def test_run_script_prints_letters_that_the_output_lacks_as_escapes(monkeypatch):
    """A name that ASCII cannot represent, or that is not valid text, must not stop a script after its work."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    with pytest.raises(SystemExit) as end:
        run_script(lambda: print("K\u00e4tzchen \udcff"))
    assert end.value.code == 0 and written.getvalue() == b"K\\xe4tzchen \\udcff\n"
