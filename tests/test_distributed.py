"""Runs of several processes under msrun on CPU are compared with a run of one process."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mindcv.engine.snapshot import SUFFIX, read_snapshot

ROOT = Path(__file__).parent.parent
# 100 images are 4 steps of 24, whatever the processes. All that is random is on. Groups of 4 images are mixed.
OPTIONS = [
    "--config",
    "configs/convnextv2/convnextv2_atto_digits.yaml",
    "--num_samples",
    "100",
    "--epoch_size",
    "2",
    "--warmup_epochs",
    "1",
    "--decay_epochs",
    "1",
    "--ema",
    "True",
    "--ema_warmup",
    "4",
    "--auto_augment",
    "randaug-m9-mstd0.5-inc1",
    "--re_prob",
    "0.25",
    "--re_value",
    "pixel",
    "--mixup",
    "0.8",
    "--cutmix",
    "1.0",
    "--mixup_group_size",
    "4",
    "--drop_path_rate",
    "0.2",
    "--val_interval",
    "1",
    "--save_every_steps",
    "2",
    "--clip_grad",
    "True",
    "--clip_value",
    "1.0",
    "--log_interval",
    "1",
]
MIDDLE, END = f"convnextv2_atto-2_2{SUFFIX}", f"convnextv2_atto-2_4{SUFFIX}"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Job:
    """A script in `num` processes, which msrun starts if there are several. `host` is one of two simulated hosts."""

    def __init__(self, folder, num, script, *options, host=None):
        self.logs = folder / f"log-{num}-{time.monotonic_ns()}"
        self.logs.mkdir(parents=True)
        command = [sys.executable]
        environment = dict(os.environ, MINDCV_KERNELS_THREADS="1")
        if num > 1:
            # msrun runs what `python` is on the path. Workers ask for the scheduler every second, not every ten, and a
            # dead one is noticed after 8 s.
            environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
            environment.update(MS_RETRY_INTERVAL_LOWER="1", MS_RETRY_INTERVAL_UPPER="1", MS_NODE_TIMEOUT="8")
            msrun = [str(Path(sys.executable).with_name("msrun")), f"--log_dir={self.logs}", "--join=True"]
            own = [f"--local_worker_num={num}", f"--master_port={free_port()}"] if host is None else host.options
            command = [*(host.prefix if host else []), *msrun, f"--worker_num={num}", *own]
            options += ("--distribute", "True")
        self.output = self.logs / "output.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [*command, str(ROOT / script), *options],
                cwd=ROOT if num == 1 else self.logs.parent,  # msrun leaves files where it runs
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self):
        """Wait for the end of the job and return its exit status."""
        try:
            return self.process.wait(240)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def said(self, rank=None):
        path = self.output if rank is None else self.logs / f"worker_{rank}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, text, rank):
        until = time.monotonic() + 120
        while text not in self.said(rank):
            assert time.monotonic() < until and self.process.poll() is None, self.said() + self.said(rank)
            time.sleep(0.05)

    def worker(self, rank):
        """Return the process id of a rank."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    environment = (folder / "environ").read_bytes()
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                is_worker = (
                    b"\0MS_ROLE=MS_WORKER\0" in b"\0" + environment and f"RANK_ID={rank}\0".encode() in environment
                )
                if parent == self.process.pid and is_worker:
                    return int(folder.name)
        raise AssertionError(f"no process of rank {rank}")


def train(folder, num, batch_size, *options, name="ckpt", host=None):
    options = [str(ROOT / word) if word.startswith("configs/") else word for word in OPTIONS] + list(options)
    options += ["--batch_size", str(batch_size), "--ckpt_save_dir", str(folder / name)]
    return Job(folder, num, "train.py", *options, host=host)


def check_same(one, other, atol=1e-6):
    """Check that two snapshots differ only by the order of sums, whose effect the first steps of AdamW enlarge."""
    arrays, other_arrays = one.arrays, other.arrays
    assert arrays.keys() == other_arrays.keys()
    for name in arrays:
        scale = np.abs(arrays[name]).max(initial=0)
        np.testing.assert_allclose(other_arrays[name], arrays[name], rtol=0, atol=max(1e-5 * scale, atol), err_msg=name)
    rows, other_rows = (each.callbacks["MetricsTable"]["rows"] for each in (one, other))
    assert len(rows) == len(other_rows)
    for row, other_row in zip(rows, other_rows):
        for name in row.keys() - {"images_per_s", "seconds"}:
            assert other_row[name] == pytest.approx(row[name], rel=1e-5), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def alone(folder):
    job = train(folder, 1, 24, name="alone")
    assert job.end() == 0, job.said()
    return folder / "alone"


@pytest.fixture(scope="module")
def together(folder):
    job = train(folder, 2, 12, name="together")
    assert job.end() == 0, job.said() + job.said(0)
    assert "epoch 2/2 step 4/4" in job.said(0) and "epoch" not in job.said(1)  # only rank 0 logs progress
    return folder / "together"


def test_training_in_two_processes_gives_the_run_of_one(alone, together):
    for name in (MIDDLE, END):
        check_same(read_snapshot(alone / name), read_snapshot(together / name))
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())
    with open(together / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]


@pytest.mark.slow
def test_training_in_one_process_continues_a_run_of_two(folder, alone, together):
    job = train(folder, 1, 24, "--resume", str(together / MIDDLE), name="moved")
    assert job.end() == 0, job.said()
    assert "epoch 2/2 step 3/4" in job.said() and "epoch 1/2" not in job.said()
    check_same(read_snapshot(alone / END), read_snapshot(folder / "moved" / END))


@pytest.mark.slow
def test_pretraining_in_two_processes_gives_the_run_of_one(folder):
    recipe = str(ROOT / "configs/convnextv2/fcmae_convnextv2_atto_digits.yaml")
    shorter = ("--num_samples", "48", "--epoch_size", "2", "--warmup_epochs", "1", "--decay_epochs", "1")
    snapshots = []
    for num, batch_size in ((1, "24"), (2, "12")):
        place = folder / f"pretrained-{num}"
        options = ("--batch_size", batch_size, "--ckpt_save_dir", str(place), "--picture_interval", "0")
        options += ("--ckpt_save_interval", "1")
        job = Job(folder, num, "pretrain.py", "--config", recipe, *shorter, *options)
        assert job.end() == 0, job.said() + job.said(0)
        snapshots.append(read_snapshot(place / f"fcmae_convnextv2_atto-2_2{SUFFIX}"))
    check_same(*snapshots)


@pytest.mark.slow
@pytest.mark.parametrize("tta", ["none", "ten_crop"])
def test_validation_in_two_processes_gives_the_counts_of_one(folder, alone, tta):
    found = []
    for num in (1, 2):
        results = folder / f"results-{tta}-{num}.json"
        data = ("--dataset", "digits", "--batch_size", "50", "--ckpt_path", str(alone / "convnextv2_atto-2_4.ckpt"))
        views = ("--tta", tta, "--crop_pct", "0.875")
        job = Job(folder, num, "validate.py", *data, *views, "--results_json", str(results))
        assert job.end() == 0, job.said() + job.said(0)
        found.append(json.loads(results.read_text()))
    one, two = found
    assert one["num_images"] == 359  # the held-out images; 360 would count one image twice
    exact = ("num_images", "num_top_1", "num_top_5", "top_1", "top_5", "ece", "mean_confidence", "calibration")
    for name in exact:
        assert two[name] == one[name]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_probe_in_two_processes_gives_the_bits_of_one(folder, alone, probe):
    found = []
    for num in (1, 2):
        results = folder / f"{probe}-{num}.json"
        data = ("--dataset", "digits", "--batch_size", "50", "--ckpt_path", str(alone / "convnextv2_atto-2_4.ckpt"))
        job = Job(folder, num, "validate.py", *data, "--probe", probe, "--mode", "1", "--results_json", str(results))
        assert job.end() == 0, job.said() + job.said(0)
        found.append(results.read_text())
    assert found[1] == found[0]
    assert json.loads(found[0])["num_images"] == 359 and json.loads(found[0])["top_1"] > 0.5


@pytest.mark.slow
def test_launcher_names_a_rank_that_was_killed(folder):
    job = train(folder, 2, 12, "--epoch_size", "50", name="killed")
    job.wait_for("epoch 1/50 step 4/4", rank=0)  # an earlier step has been saved by then
    os.kill(job.worker(1), signal.SIGKILL)
    assert job.end() not in (0, None)
    assert f"rank 1 was killed by SIGKILL; its log is {job.logs / 'worker_1.log'}" in job.said()
    saved = [read_snapshot(path) for path in (folder / "killed").glob(f"*{SUFFIX}")]  # all whole
    assert saved and min(snapshot.progress.global_step for snapshot in saved) >= 2


@pytest.mark.slow
def test_sigterm_to_one_rank_stops_all_ranks_at_the_same_step(folder):
    job = train(folder, 2, 12, "--epoch_size", "50", name="stopped")
    job.wait_for("epoch 1/50 step 1/4", rank=0)
    os.kill(job.worker(1), signal.SIGTERM)  # one rank gets the signal, and all ranks stop
    assert job.end() not in (0, None)
    assert "stopped: by SIGTERM after epoch" in job.said(0) and "stopped: by SIGTERM after epoch" in job.said(1)
    (line,) = (line for line in job.said(0).splitlines() if line.startswith("saved "))
    path = line.removeprefix("saved ").removesuffix(", from which --resume auto goes on")
    assert read_snapshot(path).progress.global_step >= 1


@pytest.mark.slow
def test_training_in_three_processes_gives_the_run_of_one(folder, alone):
    job = train(folder, 3, 8, name="three")
    assert job.end() == 0, job.said() + job.said(0)
    check_same(read_snapshot(alone / END), read_snapshot(folder / "three" / END))


@pytest.mark.slow
def test_training_that_accumulates_gives_the_run_of_one_large_batch(folder, alone):
    job = train(folder, 1, 8, "--gradient_accumulation_steps", "3", name="accumulated")
    assert job.end() == 0, job.said()
    check_same(read_snapshot(alone / END), read_snapshot(folder / "accumulated" / END))


@pytest.mark.slow
def test_training_in_two_processes_divides_the_last_group_of_images(folder):
    """The last step has 4 images, which are one group, and each process has two of them."""
    snapshots = []
    for num, batch_size in ((1, 24), (2, 12)):
        job = train(folder, num, batch_size, "--drop_remainder", "False", "--mixup_mode", "pair", name=f"rest-{num}")
        assert job.end() == 0, job.said() + job.said(0)
        snapshots.append(read_snapshot(folder / f"rest-{num}" / f"convnextv2_atto-2_5{SUFFIX}"))
    check_same(*snapshots)


@pytest.mark.slow
def test_compile_cache_keeps_the_step_of_each_rank(folder, together):
    """A second run takes the compiled steps and has the same bits. When one rank lost its entry, all ranks compile."""
    cache = folder / "cache"
    for name, num_taken in (("made", 0), ("taken", 2), ("half", 0)):
        job = train(folder, 2, 12, "--compile_cache_dir", str(cache), name=name)
        assert job.end() == 0, job.said() + job.said(0)
        takers = [rank for rank in (0, 1) if "Use the compilation cache" in job.said(rank)]  # says MindSpore
        assert len(takers) == num_taken
        entries = sorted(cache.iterdir())
        assert len(entries) == 2
        expected, arrays = (read_snapshot(path / END).arrays for path in (together, folder / name))
        assert [key for key in expected if arrays[key].tobytes() != expected[key].tobytes()] == []
        if name == "taken":
            shutil.rmtree(entries[0])


class Host:
    """A simulated host: a network namespace with one end of a virtual cable."""

    def __init__(self, name, number):
        self.name = name
        self.prefix = ["ip", "netns", "exec", name]
        self.options = [
            "--local_worker_num=1",
            f"--node_rank={number}",
            "--master_addr=10.77.0.1",
            "--master_port=8300",
        ]
        self.options += ["--bind_core=True"]


@pytest.fixture
def hosts():
    """Create two network namespaces that a pair of virtual interfaces connects, if the machine allows it."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command")
    names = [f"mindcv{os.getpid()}{end}" for end in "ab"]
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add e0 netns {names[0]} type veth peer name e0 netns {names[1]}"]
    for number, name in enumerate(names, 1):
        commands += [f"ip -n {name} addr add 10.77.0.{number}/24 dev e0"]
        commands += [f"ip -n {name} link set {interface} up" for interface in ("lo", "e0")]
    try:
        for command in commands:
            try:
                subprocess.run(command.split(), check=True, capture_output=True)
            except subprocess.CalledProcessError:
                pytest.skip("this machine allows no network namespaces")
        yield [Host(name, number) for number, name in enumerate(names)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_training_on_two_hosts_gives_the_run_of_one_process(folder, alone, hosts):
    jobs = [train(folder, 2, 12, name="hosts", host=host) for host in hosts]
    assert [job.end() for job in jobs] == [0, 0], jobs[0].said() + jobs[1].said()
    check_same(read_snapshot(alone / END), read_snapshot(folder / "hosts" / END))


@pytest.mark.slow
def test_training_ends_on_both_hosts_when_the_network_fails(folder, hosts):
    jobs = [train(folder, 2, 12, "--epoch_size", "50", name="cut", host=host) for host in hosts]
    jobs[0].wait_for("epoch 1/50 step 2/4", rank=0)
    subprocess.run(["ip", "-n", hosts[0].name, "link", "set", "e0", "down"], check=True)
    assert all(job.end() not in (0, None) for job in jobs)
    read_snapshot(folder / "cut" / f"convnextv2_atto-1_2{SUFFIX}")
