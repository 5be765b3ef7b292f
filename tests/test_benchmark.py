"""Tests of tools/benchmark.py: runs from the command line, and its modules."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv.models import ConvNeXt
from mindcv.utils.errors import ConfigError, UserError

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


pytestmark = pytest.mark.usefixtures("tools")


def run(cwd, *arguments):
    command = [sys.executable, str(TOOLS / "benchmark.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd)


def parsed(*arguments):
    from benchmarks.options import parse_command_line

    return parse_command_line(list(map(str, arguments)))


def problems(*arguments):
    with pytest.raises(ConfigError) as error:
        parsed(*arguments)
    return error.value.problems


# Runs from the command line


def check_figures(figures):
    for name in ("images_per_s_median", "images_per_s_min", "images_per_s_max", "first_step_s", "peak_memory_mib"):
        assert isinstance(figures[name], float) and figures[name] > 0, name
    assert figures["images_per_s_min"] <= figures["images_per_s_median"] <= figures["images_per_s_max"]
    assert isinstance(figures["memory_growth_mib"], float)
    assert figures["versions"].keys() - {"kernels"} == {"mindcv", "mindspore", "numpy", "pillow", "python"}
    assert all(isinstance(version, str) for version in figures["versions"].values())


def check_report(report, task, threads):
    assert report["settings"]["task"] == task and report["threads"] == threads
    machine = report["machine"]
    assert machine.keys() == {"cpu_model", "cores", "instruction_sets", "memory_mib"}
    assert isinstance(machine["cores"], int) and machine["cores"] >= threads
    check_figures(report)
    (contender,) = report["contenders"]
    check_figures(contender)
    assert contender["name"] == "mindcv"
    assert {name: report[name] for name in contender if name != "name"} == {
        name: value for name, value in contender.items() if name != "name"
    }


@pytest.mark.parametrize("task", ["forward", pytest.param("train", marks=pytest.mark.slow)])
def test_benchmark_writes_the_report_of_a_small_network(task, tmp_path):
    sizes = ["--model", "convnextv2_atto", "--image_size", 32, "--batch_size", 2, "--threads", 1]
    done = run(
        tmp_path, "--task", task, *sizes, "--steps", 2, "--warmup", 0, "--rounds", 2, "--json", tmp_path / "new/o.json"
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads((tmp_path / "new/o.json").read_text())
    check_report(report, task, threads=1)
    assert report["versions"]["kernels"]
    assert report["settings"]["steps"] == 2 and report["settings"]["mode"] == 0
    assert "| mindcv " in done.stdout and "mindspore 2." in done.stdout
    assert os.listdir(tmp_path) == ["new"]


def test_benchmark_writes_the_report_of_the_data_pipeline(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 60, 80, 3), np.uint8)
    for number, image in enumerate(pixels):
        (tmp_path / f"in/class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"in/class{number % 2}/{number}.jpg")
    sizes = ["--image_size", 32, "--batch_size", 2, "--rounds", 2, "--json", tmp_path / "o.json"]
    done = run(tmp_path, "--task", "data", "--data_dir", tmp_path / "in", *sizes)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o.json").read_text())
    check_report(report, "data", threads=len(os.sched_getaffinity(0)))
    assert 0 < report["image_lock_ms"] < report["image_ms"] and report["main_lock_ms"] > 0
    assert "memory growth" in done.stdout and "the worker holds Python's lock" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["in", "o.json"]


def test_benchmark_reports_each_wrong_flag_in_one_line(tmp_path):
    done = run(tmp_path, "--modle", "convnext_tiny", "--batch_size", 0)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.splitlines() == [
        "error: --modle: there is no option 'modle'; did you mean 'model'?",
        "error: --batch_size: expected a whole number, at least 1, got '0'",
    ]


def test_benchmark_names_missing_packages_of_a_peer(tmp_path):
    python = tmp_path / "python"  # an interpreter without any package
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    done = run(tmp_path, "--model", "convnext_tiny", "--peer", "timm", "--peer_python", python)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == (
        f"error: peer timm: packages are missing: timm torch; run: {python} -m pip install timm torch\n"
    )


# Options


def test_parse_command_line_joins_several_peers():
    config = parsed("--peer", "timm", "--model", "convnext_tiny", "--peer=openvino", "--peer", "timm", "onnxruntime")
    assert config.contenders == ["mindcv", "timm", "openvino", "onnxruntime"]
    config = parsed("--model", "convnext_tiny", "--peer", "timm", "--peer_compile", "--peers_only")
    assert config.contenders == ["timm", "timm-compile"]
    config = parsed("--model", "convnext_tiny", "--task", "train", "--second_run", True, "--peer", "timm")
    assert config.contenders == ["mindcv", "mindcv-again", "timm"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--task train", "model: is required for the task train"),
        ("--model convnext_tny", "model: 'convnext_tny' is not known; did you mean 'convnext_tiny'?"),
        ("--model convnext_tiny --peer tim", "peer: 'tim' is not known; did you mean 'timm'? (there are: onnx"),
        ("--model convnext_tiny --peer", "--peer: a value is missing"),
        ("--model convnext_tiny --workers 2", "workers: has no effect on the task forward"),
        ("--task data --mode 1", "mode: has no effect on the task data"),
        ("--task data --data_dir not/here", "data_dir: the folder 'not/here' does not exist"),
        ("--model convnext_tiny --task train --peer openvino", "peer: openvino does not support the task train"),
        ("--model convnext_tiny --peers_only --dtype bfloat16 --peer onnxruntime", "dtype: onnxruntime does not"),
        ("--model convnext_tiny --dtype bfloat16 --peer onnxruntime-own-file", "dtype: onnxruntime-own-file does not"),
        ("--model convnext_tiny --peer_compile", "peer_compile: has an effect only with --peer timm"),
        ("--model convnext_tiny --peers_only", "peers_only: needs at least one --peer"),
        ("--model convnext_tiny --peer_python not/here", "peer_python: 'not/here' is not a Python interpreter"),
        ("--model convnext_tiny --peer timm --device_target GPU", "device_target: must be CPU, because peers"),
        ("--model convnext_tiny --threads 100000", "threads: 100000 is more than the "),
        ("--model convnext_tiny --processes 100000", "processes: 100000 is more than the "),
        ("--model convnext_tiny --second_run True", "second_run: has no effect on the task forward"),
        ("--model convnext_tiny --task train --second_run True --mode 1", "second_run: needs graph mode"),
        ("--model convnext_tiny --task train --second_run True --peer timm --peers_only", "second_run: cannot be"),
        ("--task pretrain --model convnext_tiny", "model: the task pretrain measures a masked autoencoder, such as"),
        ("--task train --model fcmae_convnextv2_tiny", "model: the task train measures a classifier, got 'fcmae_"),
        ("--task train --model convnext_tiny --mask_ratio 0.5", "mask_ratio: has no effect on the task train"),
        ("--task data --processes 2", "processes: has no effect on the task data"),
        ("--model convnext_tiny --processes 2 --peer openvino", "processes: openvino runs in one process only, got 2"),
        ("--model convnext_tiny --only x", "only: has an effect only with --suite"),
        ("--suite docs", "results: is required with --suite"),
        ("--suite docs --results r --busy_processes 1", "busy_processes: cannot be combined with --suite, whose"),
        ("--suite docs --results r --model convnext_tiny", "model: cannot be combined with --suite"),
        ("--model convnext_tiny --task fly", "--task: expected one of forward, train, pretrain, data, got 'fly'"),
    ],
)
def test_parse_command_line_refuses_options_that_do_not_fit(arguments, expected):
    (problem,) = problems(*arguments.split())
    assert problem.startswith(expected)


def test_settings_hold_the_options_of_the_task():
    settings = parsed("--model", "convnext_tiny", "--batch_size", 3).settings
    assert settings["model"] == "convnext_tiny" and settings["batch_size"] == 3
    assert settings["threads"] == len(os.sched_getaffinity(0))
    assert not {"workers", "pipeline", "data_dir", "json", "peer"} & settings.keys()
    assert settings["processes"] == 1 and settings["busy_processes"] == 0
    settings = parsed("--task", "data", "--busy_processes", 2).settings
    assert settings["busy_processes"] == 2
    assert settings["workers"] == 1 and not {"model", "mode", "steps"} & settings.keys()


# Contenders

# A process that answers as a worker does: 3, 4, 5 ... images/s, and 100 MiB more memory after each
# round.
STUB_WORKER = """
import json, sys
settings = json.loads(sys.stdin.readline())
print(json.dumps({"first_step_s": settings["first"], "versions": {"x": "1"}}), flush=True)
for count, _ in enumerate(sys.stdin):
    answer = {"images": 3 + count, "seconds": 1.0, "peak_memory_mib": 7.0, "memory_mib": 100.0 * count}
    print(json.dumps(answer), flush=True)
"""


def contender(code, name="x"):
    from benchmarks.contenders import Contender
    from benchmarks.processes import OneProcess

    return Contender(name, OneProcess(name, [sys.executable, "-c", code]), {"first": 0.5})


def test_contender_records_the_figures_of_its_rounds():
    one = contender(STUB_WORKER)
    for _ in range(4):
        one.run_round()
    one.close()
    assert one.figures.summary() == {
        "name": "x",
        "images_per_s_median": 4.5,
        "images_per_s_min": 3.0,
        "images_per_s_max": 6.0,
        "first_step_s": 0.5,
        "peak_memory_mib": 7.0,
        "memory_growth_mib": 300.0,
        "versions": {"x": "1"},
    }


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "x: its process ended with status -9"),
        ("""print('{"error": "no such model"}')""", "x: no such model"),
    ],
)
def test_contender_is_named_when_it_cannot_be_prepared(code, message):
    with pytest.raises(UserError, match=message):
        contender(code)


def test_contender_is_named_when_a_round_fails():
    one = contender('import sys; sys.stdin.readline(); print(\'{"first_step_s": 1, "versions": {}}\', flush=True)')
    one._processes._process.wait()  # then its end of the pipe is closed
    with pytest.raises(UserError, match="x: its process ended with status 0"):
        one.run_round()
    one.close()


def test_run_rounds_alternates_between_contenders():
    from benchmarks.contenders import run_rounds

    class Recorder:
        def __init__(self, name):
            self.name = name

        def run_round(self):
            order.append(self.name)

    order = []
    run_rounds([Recorder("a"), Recorder("b"), Recorder("c")], rounds=3, pause=0)
    assert "".join(order) == "abcabcabc"


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_figures_summary_has_median_minimum_and_maximum(count):
    from benchmarks.contenders import Figures

    rng = np.random.default_rng(count)
    images, seconds, memory = rng.integers(1, 100, count), rng.uniform(0.1, 9, count), rng.uniform(50, 60, count)
    figures = Figures("x", 1.0, {})
    for values in zip(images.tolist(), seconds.tolist(), memory.tolist()):
        figures.add_round([dict(zip(("images", "seconds", "memory_mib"), values), peak_memory_mib=1.0)])
    summary = figures.summary()
    rates = images / seconds
    assert summary["images_per_s_median"] == pytest.approx(np.median(rates), rel=1e-12)
    assert summary["images_per_s_min"] == rates.min() and summary["images_per_s_max"] == rates.max()
    assert summary["memory_growth_mib"] == pytest.approx(memory[-1] - memory[0])


def test_figures_count_the_longest_time_of_several_processes():
    from benchmarks.contenders import Figures

    def answer(images, seconds, memory):
        return {"images": images, "seconds": seconds, "memory_mib": memory, "peak_memory_mib": 2 * memory}

    figures = Figures("x", 1.0, {})
    figures.add_round([answer(12, 2.0, 100.0), answer(12, 4.0, 30.0), answer(8, 3.0, 1.0)])
    assert figures.images_per_s == [8.0] and figures.memory_mib == [131.0] and figures.peak_memory_mib == 262.0
    figures.add_round([{**answer(1, 1.0, 1.0), "memory_mib": None, "peak_memory_mib": None}, answer(1, 1.0, 1.0)])
    assert figures.memory_mib[1] is None and figures.peak_memory_mib is None


def worker(code, **settings):
    """Run one round of a worker whose contender is the module `code`. Return its answers and the finished process."""
    program = "import sys; from benchmarks import worker; worker._MODULES['x'] = sys.argv[1]; worker.main('x')"
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(code.parent), str(TOOLS)])}
    lines = json.dumps({"threads": 1, "steps": 3, "warmup": 2, **settings}) + "\nround\n"
    command = [sys.executable, "-c", program, code.stem]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()], done


SLEEPER = """
import os, time
from benchmarks.workload import Workload

def build(settings):
    os.write(1, b"chatter of C++\\n")
    print("chatter")
    count = []

    def run():
        count.append(len(os.sched_getaffinity(0)))
        time.sleep(0.05)
        return 10 * len(count)

    return Workload(run, lambda: time.sleep(0.2), {"cores": str(len(os.sched_getaffinity(0)))})
"""


def test_worker_times_the_first_step_and_the_rounds(tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (ready, answer), done = worker(tmp_path / "sleeper.py")
    assert 0.2 <= ready["first_step_s"] < 0.4
    assert ready["threads"] == 1 and ready["versions"]["cores"] == "1"
    assert answer["images"] == 30 + 40 + 50  # after the warm-up's 10 and 20
    assert 0.15 <= answer["seconds"] < 0.35
    assert 3 < answer["memory_mib"] < 100 and 3 < answer["peak_memory_mib"] < 100
    assert done.stderr.count("chatter") == 2 and done.returncode == 0


def test_worker_answers_with_the_error_when_it_fails(tmp_path):
    (tmp_path / "broken.py").write_text("def build(settings):\n    raise KeyError('gone')\n")
    answers, done = worker(tmp_path / "broken.py")
    assert answers == [{"error": "KeyError: 'gone'"}] and done.returncode == 1
    assert "Traceback" in done.stderr


def test_modules_of_peers_import_neither_mindspore_nor_mindcv():
    """A peer's process imports only its own library, the standard library, and modules that do the same."""
    runners = ("run_timm", "run_onnxruntime", "run_openvino")
    for name in (*runners, "export_onnx", "worker", "workload", "machine", "busy"):
        text = (TOOLS / f"benchmarks/{name}.py").read_text()
        assert "mindspore" not in text and "from mindcv" not in text and "import mindcv" not in text, name


@pytest.fixture
def tiny(monkeypatch):
    """Return the list of networks that the workloads build. Each has one block per stage."""
    from benchmarks import run_mindcv

    def create(name, num_classes):
        assert name == "convnext_atto"
        built.append(ConvNeXt(num_classes=num_classes, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)))
        return built[-1]

    built = []
    monkeypatch.setattr(run_mindcv, "create_model", create)
    return built


@pytest.mark.parametrize("task", ["forward", "train"])
def test_build_of_mindcv_runs_forward_and_training_steps(task, tiny):
    from benchmarks.run_mindcv import build

    config = parsed("--task", task, "--model", "convnext_atto", "--mode", 1, "--batch_size", 3, "--image_size", 32)
    workload = build(config.settings)
    (network,) = tiny
    before = [parameter.asnumpy().copy() for parameter in network.trainable_params()]
    assert workload.first() == workload.run() == 3
    moved = [np.abs(p.asnumpy() - old).max() for p, old in zip(network.trainable_params(), before)]
    # AdamW moves each weight by about the learning rate per step, at least in the first two steps.
    assert max(moved) == 0 if task == "forward" else 1e-3 < max(moved) < 2.2e-3
    assert network.training == (task == "train")


def test_own_onnx_file_runs_as_a_workload_of_onnxruntime(tmp_path, monkeypatch):
    from benchmarks import export_own_onnx, run_onnxruntime

    def create(name, num_classes):
        assert name == "convnext_atto"
        return ConvNeXt(num_classes=num_classes, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))

    config = parsed("--model", "convnext_atto", "--batch_size", 3, "--image_size", 32, "--threads", 1)
    settings = {**config.settings, "onnx_path": str(tmp_path / "model.onnx")}
    monkeypatch.setattr(export_own_onnx, "create_model", create)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(settings)))
    export_own_onnx.main()
    workload = run_onnxruntime.build(settings)
    assert workload.first() == workload.run() == 3


@pytest.mark.parametrize("failing", [False, True])
def test_onnx_files_of_contenders_are_written_once_each_and_removed(failing, monkeypatch):
    """Contenders that run the same file share it, and a failed export names the model."""
    from benchmarks import contenders

    def fake_export(command, *, input, **options):
        modules.append(command[-1])
        Path(json.loads(input)["onnx_path"]).write_text(command[-1])
        return subprocess.CompletedProcess(command, int(failing))

    modules = []
    monkeypatch.setattr(contenders.subprocess, "run", fake_export)
    peers = ["onnxruntime", "openvino", "openvino-own-file", "timm"]
    config = parsed("--model", "convnext_atto", "--peer", *peers)
    if failing:
        message = "export of convnext_atto to ONNX failed with status 1"
        with pytest.raises(UserError, match=message), contenders._onnx_files(config):
            pass
        return
    with contenders._onnx_files(config) as paths:
        texts = {name: Path(path).read_text() for name, path in paths.items()}
    assert texts == {
        "onnxruntime": "benchmarks.export_onnx",
        "openvino": "benchmarks.export_onnx",
        "openvino-own-file": "benchmarks.export_own_onnx",
    }
    assert len(modules) == 2 and not any(Path(path).exists() for path in paths.values())
