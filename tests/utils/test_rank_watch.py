"""The watch over a job's workers, with processes that play the scheduler and the workers."""

import os
import subprocess
import sys
import time

import pytest

SCHEDULER = "from mindcv.utils.rank_watch import watch_workers; watch_workers(); print('up', flush=True); input()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def start(code, role, rank, log):
    environment = dict(os.environ, MS_ROLE=role, RANK_ID=rank)
    pipes = {"stdin": subprocess.PIPE, "stderr": log}
    if role == "MS_SCHED":
        pipes["stdout"] = subprocess.PIPE
    else:
        pipes["stdout"] = log
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)


@pytest.fixture
def job(tmp_path):
    """A scheduler whose watch is up, workers of ranks 0 and 1 that do what they are told, and the scheduler's log."""
    logs = [tmp_path / name for name in ("scheduler.log", "0.log", "1.log")]
    files = [log.open("w") for log in logs]
    code = "import os, signal; exec(input())"
    workers = [start(code, "MS_WORKER", str(rank), files[rank + 1]) for rank in (0, 1)]
    scheduler = start(SCHEDULER, "MS_SCHED", "0", files[0])
    assert scheduler.stdout.readline() == "up\n"
    time.sleep(1)  # the watch has seen both
    yield scheduler, workers, logs
    for process in (scheduler, *workers):
        process.kill()
        process.wait()
        process.stdin.close()
    scheduler.stdout.close()
    for file in files:
        file.close()


def said(log, seconds):
    """The log as soon as there is anything in it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not log.read_text():
        time.sleep(0.05)
    return log.read_text()


def tell(worker, code):
    worker.stdin.write(code + "\n")
    worker.stdin.flush()


@pytest.mark.parametrize(
    ("code", "end"),
    [("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"), ("os._exit(3)", "ended with status 3")],
)
def test_a_bad_end_is_told_with_rank_and_log(job, code, end):
    _, workers, logs = job
    tell(workers[1], code)
    assert said(logs[0], 10) == f"[ERROR] rank 1 {end}; its log is {logs[2]}\n"


def test_good_ends_are_not_told(job):
    scheduler, workers, logs = job
    for worker in workers:
        tell(worker, "os._exit(0)")
    assert said(logs[0], 1) == ""
    scheduler.stdin.write("\n")
    scheduler.stdin.flush()
    assert scheduler.wait(10) == 0
