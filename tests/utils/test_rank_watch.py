"""Tests of the watch over a job's workers. Small processes stand in for the scheduler and the workers."""

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
    """Return a scheduler with a running watch, workers of ranks 0 and 1 that run given code, and the three logs."""
    logs = [tmp_path / name for name in ("scheduler.log", "0.log", "1.log")]
    files = [log.open("w") for log in logs]
    code = "import os, signal; exec(input())"
    workers = [start(code, "MS_WORKER", str(rank), files[rank + 1]) for rank in (0, 1)]
    scheduler = start(SCHEDULER, "MS_SCHED", "0", files[0])
    assert scheduler.stdout.readline() == "up\n"
    time.sleep(1)  # by then the watch has found both workers
    yield scheduler, workers, logs
    for process in (scheduler, *workers):
        process.kill()
        process.wait()
        process.stdin.close()
    scheduler.stdout.close()
    for file in files:
        file.close()


def read_log(log, seconds):
    """Return the log as soon as it is not empty, or after the given time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not log.read_text():
        time.sleep(0.05)
    return log.read_text()


def run_in(worker, code):
    worker.stdin.write(code + "\n")
    worker.stdin.flush()


@pytest.mark.parametrize(
    ("code", "failure"),
    [("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"), ("os._exit(3)", "exited with status 3")],
)
def test_watch_workers_names_rank_and_log_of_a_failed_worker(job, code, failure):
    _, workers, logs = job
    run_in(workers[1], code)
    assert read_log(logs[0], 10) == f"[ERROR] rank 1 {failure}; its log is {logs[2]}\n"


def test_watch_workers_reports_nothing_when_workers_succeed(job):
    scheduler, workers, logs = job
    for worker in workers:
        run_in(worker, "os._exit(0)")
    assert read_log(logs[0], 1) == ""
    scheduler.stdin.write("\n")
    scheduler.stdin.flush()
    assert scheduler.wait(10) == 0
