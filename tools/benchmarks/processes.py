"""The processes of a contender: one, or the ranks of a job that a launcher starts. They are asked line by line."""

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

# (number of processes, free port) to a launcher's command, which the arguments of Python complete
Launch = Callable[[int, int], list[str]]


class Processes(Protocol):
    """What a contender runs in."""

    def ask(self, line: str) -> list[dict[str, Any]]:
        """Send `line` to each process, and give what each answers, by rank.

        Raises:
            UserError: a process failed or was killed.
        """

    def close(self, seconds: float = _SECONDS_TO_END) -> None:
        """End the processes: ask them to, and kill what is left of them after `seconds`."""


class OneProcess:
    """A process that reads its standard input and answers on its standard output.

    Args:
        name: of the contender, told in errors.
        command: of the process.
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
            raise UserError(f"{self._name}: its process ended with status {status} (-9: out of memory?)")
        values = json.loads(answer)
        if "error" in values:
            raise UserError(f"{self._name}: {values['error']}")
        return [values]

    def close(self, seconds: float = _SECONDS_TO_END) -> None:
        """See `Processes`."""
        with suppress(BrokenPipeError):  # of a question that a process did not live to read
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass(frozen=True)
class _Rank:
    """A process of a job: its number in the job, its process number, and the socket it is asked by."""

    rank: int
    pid: int
    connection: socket.socket
    stream: TextIO


class Job:
    """Processes that a launcher starts as the ranks of one job.

    A launcher takes its processes' standard input and output for itself. So each connects to a socket in a folder that
    no other user can read, which holds their logs too.

    Args:
        name: of the contender, told in errors.
        launch: gives the launcher's command.
        arguments: of Python in each process; the address of the socket follows.
        num_processes: how many.

    Raises:
        UserError: the launcher ended before all had connected.
    """

    def __init__(self, name: str, launch: Launch, arguments: Sequence[str], num_processes: int):
        command = [*launch(num_processes, _free_port()), *arguments]
        self._name = name
        self._ranks: list[_Rank] = []
        self._is_whole = True
        self._files = tempfile.TemporaryDirectory(prefix="mindcv-benchmark-")
        self._folder = Path(self._files.name)
        address = str(self._folder / "socket")
        with socket.socket(socket.AF_UNIX) as listener, (self._folder / "launcher.log").open("w") as log:
            listener.bind(address)
            listener.listen(num_processes)
            self._launcher = subprocess.Popen(
                [*command, address],
                cwd=self._folder,  # launchers leave files where they run
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
        """See `Processes`. The first rank to fail is the one that is named; others may fail of its absence."""
        for rank in self._ranks:
            with suppress(OSError):  # its answer will be missing, below
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
            with suppress(OSError):  # it is gone
                rank.connection.shutdown(socket.SHUT_WR)
        with suppress(subprocess.TimeoutExpired):
            self._launcher.wait(seconds if self._is_whole else 0)
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
                    raise UserError(f"{message} before its processes had started, see above") from None
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
        values = json.loads(line) if line else {"error": "its process was ended (out of memory?)"}
        if "error" in values:
            self._is_whole = False
            own = f"worker_{rank.rank}.log"  # of msrun; what torchrun's processes write is in the launcher's
            self._show_log(own if (self._folder / own).exists() else "launcher.log")
            raise UserError(f"{self._name}, rank {rank.rank}: {values['error']}")
        return values

    def _show_log(self, name: str) -> None:
        """All but warnings, of which MindSpore has a hundred while its processes look for each other."""
        lines = (self._folder / name).read_text(errors="replace").splitlines(keepends=True)
        sys.stderr.write("".join(line for line in lines if not line.startswith("[WARNING]")))

    def _kill(self) -> None:
        """End all that is left. Ranks have sessions of their own; all else of a launcher is in its."""
        with suppress(ProcessLookupError):
            os.killpg(self._launcher.pid, signal.SIGKILL)
        self._launcher.wait()
        for rank in self._ranks:
            _kill_rank(rank)
        self._files.cleanup()


def _kill_rank(rank: _Rank) -> None:
    """End a process of a launcher's, and wait until it has let go of its files."""
    rank.connection.settimeout(0)
    until = time.monotonic() + _SECONDS_TO_END
    while not _has_hung_up(rank.connection) and time.monotonic() < until:  # so the number is still its own
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
    found = shutil.which("msrun", path=_job_environment()["PATH"])
    if not found:
        raise UserError("processes: several need msrun, MindSpore's launcher, which is not on the PATH")
    workers = [f"--worker_num={num_processes}", f"--local_worker_num={num_processes}"]
    master = ["--master_addr=127.0.0.1", f"--master_port={port}"]
    return [found, *workers, *master, "--log_dir=.", "--join=True", "python"]


def _torchrun(python: str) -> Launch:
    def command(num_processes: int, port: int) -> list[str]:
        found = os.path.abspath(shutil.which(python) or python)  # a job runs in another folder
        master = ["--master_addr=127.0.0.1", f"--master_port={port}"]
        return [found, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}", *master, "--log_dir=."]

    return command


# contender -> (its interpreter) to the launcher of its processes
LAUNCHERS: dict[str, Callable[[str], Launch]] = {
    "mindcv": lambda python: _msrun,
    "mindcv-again": lambda python: _msrun,
    "timm": _torchrun,
    "timm-compile": _torchrun,
}


def environment() -> dict[str, str]:
    """Of this process, with the tools and the `mindcv` beside them where Python looks for modules."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    folders = [
        str(_TOOLS),
        str(_TOOLS.parent),
        *(os.path.abspath(folder) for folder in given),
    ]  # whatever folder a process runs in
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def _job_environment() -> dict[str, str]:
    """Of a launcher: msrun starts the `python` of the PATH; not told how often, its ranks ask for the scheduler every
    ten seconds."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    quick = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1"}
    return {**quick, **environment(), "PATH": path}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
