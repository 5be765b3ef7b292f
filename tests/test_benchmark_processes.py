"""Tests of tools/benchmark.py --processes: contenders of several processes, and how these processes end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mindcv.utils.errors import ConfigError, UserError

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

pytestmark = [
    pytest.mark.usefixtures("tools"),
    pytest.mark.skipif(CORES < 2, reason="each process is bound to a core of its own"),
]


# A launcher that starts processes as torchrun does. When one fails, it kills the others and exits
# after a delay, as msrun does.
LAUNCHER = """
import os, subprocess, sys, time
num, command = int(sys.argv[1]), [sys.executable, *sys.argv[2:]]
print("launched", flush=True)
ranks = [subprocess.Popen(command, env={**os.environ, "RANK": str(rank)}, start_new_session=True)
         for rank in reversed(range(num))]
while any(rank.poll() is None for rank in ranks):
    if any(rank.poll() for rank in ranks):
        [rank.kill() for rank in ranks]
        time.sleep(30)
    time.sleep(0.02)
"""
# A workload in which rank r runs 10 + r images per step. It writes its process id and cores to a
# file in the folder of the test, and fails or hangs if the settings say so.
WORKLOAD = """
import os, pathlib, sys, time
from benchmarks.workload import Workload

def build(settings):
    rank, folder = int(os.environ["RANK"]), pathlib.Path(settings["folder"])
    (folder / str(rank)).write_text(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}")
    if settings.get("fails") == rank:
        raise KeyError("gone")

    def run():
        while settings.get("hangs") == rank:
            time.sleep(0.1)
        return 10 + rank

    return Workload(run, lambda: time.sleep(0.2 * rank), {"x": str(rank)})
"""
PROGRAM = "import sys; from benchmarks import worker; worker._MODULES['x'] = 'workload_x'; worker.main(*sys.argv[1:])"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that starts a contender of two processes. Its keyword arguments are the settings."""
    from benchmarks.contenders import Contender
    from benchmarks.processes import Job

    def start(**settings):
        job = Job("x", lambda num, port: [sys.executable, "-c", LAUNCHER, str(num)], ["-c", PROGRAM, "x"], 2)
        jobs.append(job)
        given = {"threads": 1, "steps": 2, "warmup": 0, "folder": str(tmp_path), **settings}
        return Contender("x", job, given)

    jobs = []
    (tmp_path / "workload_x.py").write_text(WORKLOAD)
    monkeypatch.setenv("PYTHONPATH", os.path.relpath(tmp_path))  # relative, although a job runs in another folder
    yield start
    for job in jobs:
        assert not job._folder.exists()
        assert job._launcher.poll() is not None
    for rank in (0, 1):
        if (tmp_path / str(rank)).exists():  # it may have been killed before it wrote the file
            assert not is_running(process_of(tmp_path, rank))


def process_of(folder, rank):
    return int((folder / str(rank)).read_text().split()[0])


def is_running(pid):
    """Return whether the process still runs after a second. It closes its files shortly before it ends."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.01)
    return True


def test_contender_adds_the_figures_of_a_job(start, tmp_path):
    one = start()
    one.run_round()
    one.run_round()
    (rate, _), memory = one.figures.images_per_s, one.figures.peak_memory_mib
    assert rate > 0 and one.figures.versions["x"] == "0"
    assert 0.2 <= one.figures.first_step_s < 0.5  # the longest of both
    own = int(Path(f"/proc/{process_of(tmp_path, 0)}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    assert 1.8 * own < memory < 2.2 * own
    cores = [json.loads((tmp_path / str(rank)).read_text().split(maxsplit=1)[1]) for rank in (0, 1)]
    assert cores == [[core] for core in sorted(os.sched_getaffinity(0))[:2]]
    begin = time.monotonic()
    one.close()
    assert time.monotonic() - begin < 5  # they ended when they were asked to


def test_job_returns_answers_by_rank(start):
    one = start()
    answers = one._processes.ask("round")
    assert [answer["images"] for answer in answers] == [2 * 10, 2 * 11]
    one.close()


def test_job_names_the_rank_that_fails(start, capsys):
    with pytest.raises(UserError, match="^x, rank 1: KeyError: 'gone'$"):
        start(fails=1)
    output = capsys.readouterr().err
    assert "launched" in output and "Traceback" in output


@pytest.mark.parametrize("victim", [0, 1])
def test_job_names_the_rank_that_is_killed(start, tmp_path, victim):
    one = start(hangs=1 - victim)  # the other rank waits for it, as in a collective operation
    os.kill(process_of(tmp_path, victim), signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(UserError, match=f"^x, rank {victim}: its process ended unexpectedly"):
        one.run_round()
    one.close()
    assert time.monotonic() - begin < 5


def test_worker_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "workload_x.py").write_text(WORKLOAD)
    command = ["-c", f"import subprocess; subprocess.run({[sys.executable, '-c', PROGRAM, 'x']!r})"]
    environment = {**os.environ, "RANK": "0", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(TOOLS)])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], **pipes, text=True, env=environment) as starter:
        settings = {"threads": 1, "steps": 1, "warmup": 0, "folder": str(tmp_path), "hangs": 0}
        print(json.dumps(settings), "round", sep="\n", file=starter.stdin, flush=True)
        assert "first_step_s" in json.loads(starter.stdout.readline())
        pid = process_of(tmp_path, 0)
        assert is_running(pid)
        starter.kill()
        still_runs = is_running(pid)  # it is in its round, and its input is still open: this test holds the other end
        if still_runs:
            os.kill(pid, signal.SIGKILL)
        assert not still_runs


def seconds_of(pid):
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_busy_processes_compute_on_the_cores_of_the_contenders():
    from benchmarks.neighbours import busy_processes

    with busy_processes(2, num_cores=1) as pids:
        assert len(set(pids)) == 2
        assert [os.sched_getaffinity(pid) for pid in pids] == [{min(os.sched_getaffinity(0))}] * 2
        assert {os.getsid(pid) for pid in pids} == {os.getsid(0)}
        before = [seconds_of(pid) for pid in pids]
        while any(seconds_of(pid) <= start + 0.05 for pid, start in zip(pids, before)):
            time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("error", [UserError("planted"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_measure_runs_busy_processes_beside_the_rounds_and_ends_them(error, monkeypatch):
    from benchmarks import contenders, options

    def children():
        return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())

    def rounds(*_):
        seen.append(children() - before)
        raise error

    class Prepared:
        """A contender without a process."""

        def __init__(self, *_):
            seen.append(children() - before)

        def close(self):
            pass

    before, seen = children(), []
    monkeypatch.setattr(contenders, "run_rounds", rounds)
    monkeypatch.setattr(contenders, "Contender", Prepared)
    monkeypatch.setattr(contenders, "_start", lambda *_: None)
    with pytest.raises(type(error)):
        contenders.measure(options.BenchmarkConfig(model="convnext_tiny", busy_processes=2))
    assert [len(pids) for pids in seen] == [0, 2] and children() == before


def test_busy_processes_end_when_their_parent_is_killed():
    code = """
import os, sys, time
from benchmarks.neighbours import busy_processes
with busy_processes(1, 1) as pids:
    print(*pids, flush=True)
    time.sleep(100)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), str(ROOT)])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        assert not is_running(pid)


def test_job_close_kills_processes_that_hang(start):
    one = start(hangs=0)
    print("round", file=one._processes._ranks[0].stream, flush=True)
    one._processes.close(seconds=0.5)


def test_job_reports_a_launcher_that_exits(capsys):
    from benchmarks.processes import Job

    def launch(num_processes, port):
        return [sys.executable, "-c", "import sys; print('no such thing'); sys.exit(3)"]

    with pytest.raises(UserError, match="x: its launcher ended with status 3 before its processes had started"):
        Job("x", launch, [], 2)
    assert capsys.readouterr().err == "no such thing\n"


@pytest.mark.parametrize("contender", ["mindcv", "timm"])
def test_launchers_use_the_local_machine_only(contender, monkeypatch):
    from benchmarks import processes

    monkeypatch.setattr(processes.shutil, "which", lambda name, path=None: f"/bin/{Path(name).name}")
    command = processes.LAUNCHERS[contender]("python")(3, 4321)
    assert {"--master_addr=127.0.0.1", "--master_port=4321"} <= set(command)
    assert {"mindcv": "--worker_num=3", "timm": "--nproc_per_node=3"}[contender] in command
    assert command[0] == {"mindcv": "/bin/msrun", "timm": "/bin/python"}[contender]
    monkeypatch.setattr(processes.shutil, "which", lambda name, path=None: None)
    if contender == "mindcv":
        with pytest.raises(UserError, match="processes: more than one needs msrun"):
            processes.LAUNCHERS[contender]("python")(3, 4321)


def test_settings_share_the_cores_between_processes(monkeypatch):
    from benchmarks import options

    monkeypatch.setattr(options, "available_cores", lambda: 7)
    words = ["--model", "convnext_tiny", "--task", "train", "--processes", "3", "--threads"]
    assert options.parse_command_line(words[:-1]).settings["threads"] == 2  # one core is left over
    assert options.parse_command_line([*words, "1"]).settings["threads"] == 1
    with pytest.raises(ConfigError, match="threads: 3 times 3 is more than the 7 available cores"):
        options.parse_command_line([*words, "3"])


# One training job under msrun


@pytest.mark.slow
def test_benchmark_trains_in_two_processes(tmp_path):
    options = "--task train --model convnextv2_atto --image_size 32 --batch_size 2 --steps 1 --warmup 0 --rounds 2"
    command = [sys.executable, str(TOOLS / "benchmark.py"), *options.split(), "--processes", "2", "--json", "o.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["settings"]["processes"] == 2 and report["threads"] == CORES // 2
    assert report["images_per_s_median"] > 0 and report["first_step_s"] > 0 and report["peak_memory_mib"] > 600
    assert done.stderr == "" and "| mindcv " in done.stdout
    assert os.listdir(tmp_path) == ["o.json"]  # no logs, no rank_0


def test_build_of_mindcv_gives_ranks_equal_weights_and_different_images(monkeypatch):
    from benchmarks import run_mindcv
    from benchmarks.options import parse_command_line

    from mindcv.models import ConvNeXt
    from mindcv.utils.distributed import Group

    def trained(rank):
        monkeypatch.setattr(run_mindcv, "join_group", lambda distribute: asked.append(distribute) or Group(rank, 2))
        run_mindcv.build(config.settings)
        return [parameter.asnumpy() for parameter in networks[-1].get_parameters()]

    def create(name, num_classes):
        networks.append(ConvNeXt(num_classes=num_classes, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)))
        return networks[-1]

    def create_trainer(*arguments, group, **options):
        groups.append(group)
        return original(*arguments, group=group, **options)

    asked, networks, groups, original = [], [], [], run_mindcv.create_trainer
    monkeypatch.setattr(run_mindcv, "create_model", create)
    monkeypatch.setattr(run_mindcv, "create_trainer", create_trainer)
    options = "--task train --model convnext_atto --mode 1 --batch_size 3 --image_size 32 --processes 2"
    config = parse_command_line(options.split())
    first, second = trained(0), trained(1)
    assert all(np.array_equal(one, other) for one, other in zip(first, second))
    assert asked == [True, True] and groups == [Group(0, 2), Group(1, 2)]
    images = [run_mindcv._images(config.settings, group).asnumpy() for group in groups]
    assert not np.allclose(*images)
