"""Starts the processes of a contender and exchanges lines with them.

A contender runs in one process, or in the ranks of a job that a launcher starts.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from mindcv.utils.errors import UserError

__all__ = ["LAUNCHERS", "Job", "OneProcess", "Processes", "environment"]

_TOOLS = Path(__file__).absolute().parents[1]
_SECONDS_TO_END = 10.0

# Function from (number of processes, free port) to a launcher's command. The arguments of Python
# follow the command.
Launch = Callable[[int, int], list[str]]


class Processes(Protocol):
    """The processes that a contender runs in."""

    def ask(self, line: str) -> list[dict[str, Any]]:
        """Send `line` to each process, and return the answers by rank.

        Raises:
            UserError: a process failed or was killed.
        """

    def close(self, seconds: float = _SECONDS_TO_END) -> None:
        """Ask the processes to exit, and kill those that still run after `seconds`."""


class OneProcess:
    """A process that reads its standard input and answers on its standard output.

    Args:
        name: name of the contender, for errors.
        command: command line of the process.
    """

    def __init__(self, name: str, command: Sequence[str]):
        self._name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def ask(self, line: str) -> list[dict[str, Any]]:
        """See `Processes`."""
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self._process.wait()
            raise UserError(f"{self._name}: its process ended with status {status} (-9 can mean that memory ran out)")
        values = json.loads(answer)
        if "error" in values:
            raise UserError(f"{self._name}: {values['error']}")
        return [values]

    def close(self, seconds: float = _SECONDS_TO_END) -> None:
        """See `Processes`."""
        with suppress(BrokenPipeError):  # the process may have died before it read the last line
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass(frozen=True)
class _Rank:
    """A process of a job: its rank, its process id, and the socket to it."""

    rank: int
    pid: int
    connection: socket.socket
    stream: TextIO


class Job:
    """Processes that a launcher starts as the ranks of one job.

    A launcher uses the standard input and output of its processes itself. Each process therefore connects to a socket.
    The socket and the logs are in a folder that no other user can read.

    Args:
        name: name of the contender, for errors.
        launch: function that returns the launcher's command.
        arguments: arguments of Python in each process. The address of the socket is appended.
        num_processes: number of processes.

    Raises:
        UserError: the launcher ended before all processes had connected.
    """

    def __init__(self, name: str, launch: Launch, arguments: Sequence[str], num_processes: int):
        command = [*launch(num_processes, _free_port()), *arguments]
        self._name = name
        self._ranks: list[_Rank] = []
        self._is_complete = True
        self._files = tempfile.TemporaryDirectory(prefix="mindcv-benchmark-")
        self._folder = Path(self._files.name)
        address = str(self._folder / "socket")
        with socket.socket(socket.AF_UNIX) as listener, (self._folder / "launcher.log").open("w") as log:
            listener.bind(address)
            listener.listen(num_processes)
            self._launcher = subprocess.Popen(
                [*command, address],
                cwd=self._folder,  # launchers write files to the working folder
                env=_job_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._accept(listener, num_processes)
            except BaseException:
                self._kill()
                raise

    def ask(self, line: str) -> list[dict[str, Any]]:
        """See `Processes`. The error names the first rank that fails; others may fail only because it is gone."""
        for rank in self._ranks:
            with suppress(OSError):  # the missing answer is reported below
                print(line, file=rank.stream, flush=True)
        answers: dict[int, dict[str, Any]] = {}
        with selectors.DefaultSelector() as selector:
            for rank in self._ranks:
                selector.register(rank.connection, selectors.EVENT_READ, rank)
            while len(answers) < len(self._ranks):
                for key, _ in selector.select():
                    answers[key.data.rank] = self._answer(key.data)
        return [answers[rank.rank] for rank in self._ranks]

    def close(self, seconds: float = _SECONDS_TO_END) -> None:
        """See `Processes`."""
        for rank in self._ranks:
            with suppress(OSError):  # the process has already ended
                rank.connection.shutdown(socket.SHUT_WR)
        with suppress(subprocess.TimeoutExpired):
            self._launcher.wait(seconds if self._is_complete else 0)
        self._kill()

    def _accept(self, listener: socket.socket, num_processes: int) -> None:
        listener.settimeout(0.2)
        while len(self._ranks) < num_processes:
            try:
                connection, _ = listener.accept()
            except socket.timeout:
                if self._launcher.poll() is not None:
                    self._show_log("launcher.log")
                    message = f"{self._name}: its launcher ended with status {self._launcher.returncode}"
                    raise UserError(f"{message} before its processes had started; its log is above") from None
                continue
            connection.setblocking(True)
            stream = connection.makefile("rw", encoding="utf-8")
            hello = json.loads(stream.readline())
            self._ranks.append(_Rank(hello["rank"], hello["pid"], connection, stream))
        self._ranks.sort(key=lambda rank: rank.rank)

    def _answer(self, rank: _Rank) -> dict[str, Any]:
        try:
            line = rank.stream.readline()
        except OSError:
            line = ""
        values = json.loads(line) if line else {"error": "its process ended unexpectedly; memory may have run out"}
        if "error" in values:
            self._is_complete = False
            # msrun writes a log for each rank. The output of torchrun's processes is in the
            # launcher's log.
            own_log = f"worker_{rank.rank}.log"
            self._show_log(own_log if (self._folder / own_log).exists() else "launcher.log")
            raise UserError(f"{self._name}, rank {rank.rank}: {values['error']}")
        return values

    def _show_log(self, name: str) -> None:
        """Print a log without warnings. MindSpore writes a hundred of them while its processes connect."""
        lines = (self._folder / name).read_text(errors="replace").splitlines(keepends=True)
        sys.stderr.write("".join(line for line in lines if not line.startswith("[WARNING]")))

    def _kill(self) -> None:
        """Kill all processes of the job. Ranks have sessions of their own; the launcher's session holds the others."""
        with suppress(ProcessLookupError):
            os.killpg(self._launcher.pid, signal.SIGKILL)
        self._launcher.wait()
        for rank in self._ranks:
            _kill_rank(rank)
        self._files.cleanup()


def _kill_rank(rank: _Rank) -> None:
    """Kill a process that a launcher started, and wait until it has closed its files."""
    rank.connection.settimeout(0)
    until = time.monotonic() + _SECONDS_TO_END
    while (
        not _has_hung_up(rank.connection) and time.monotonic() < until
    ):  # while it is connected, the id is still its own
        with suppress(ProcessLookupError):
            os.kill(rank.pid, signal.SIGKILL)
        time.sleep(0.01)
    with suppress(OSError):
        rank.stream.close()
    rank.connection.close()


def _has_hung_up(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _msrun(num_processes: int, port: int) -> list[str]:
    msrun = shutil.which("msrun", path=_job_environment()["PATH"])
    if not msrun:
        raise UserError("processes: more than one needs msrun, MindSpore's launcher, but it is not on the PATH")
    workers = [f"--worker_num={num_processes}", f"--local_worker_num={num_processes}"]
    master = ["--master_addr=127.0.0.1", f"--master_port={port}"]
    return [msrun, *workers, *master, "--log_dir=.", "--join=True", "python"]


def _torchrun(python: str) -> Launch:
    def command(num_processes: int, port: int) -> list[str]:
        interpreter = os.path.abspath(shutil.which(python) or python)  # a job runs in another folder
        master = ["--master_addr=127.0.0.1", f"--master_port={port}"]
        return [interpreter, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}", *master, "--log_dir=."]

    return command


# Contender -> function from its interpreter to the launcher of its processes.
LAUNCHERS: dict[str, Callable[[str], Launch]] = {
    "mindcv": lambda python: _msrun,
    "mindcv-again": lambda python: _msrun,
    "timm": _torchrun,
    "timm-compile": _torchrun,
}


def environment() -> dict[str, str]:
    """Return the environment of this process, with the tools and their `mindcv` on the path of Python's modules."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # The paths are absolute, because a process may run in any folder.
    folders = [str(_TOOLS), str(_TOOLS.parent), *(os.path.abspath(folder) for folder in given)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def _job_environment() -> dict[str, str]:
    """Return the environment of a launcher.

    msrun starts the `python` on the PATH. Its ranks look for the scheduler every ten seconds unless the environment
    sets a shorter interval.
    """
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    quick = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1"}
    return {**quick, **environment(), "PATH": path}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
