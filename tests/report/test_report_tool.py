"""Tests of tools/report.py: what it reads, what it classifies, and the mistakes of users."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from run_starts import write_start

from mindcv.engine.metrics import ClassificationCounts
from mindcv.engine.progress import RunProgress
from mindcv.utils.cli import run_script

pytestmark = pytest.mark.usefixtures("tools")
OPTIONS = {
    "model": "convnext_atto",
    "dataset": "digits",
    "val_split": "test",
    "batch_size": 16,
    "mode": 1,
    "lr": 0.5,
    "image_resize": 64,
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text("epoch,step,lr,train_loss\n1,10,0.1,2.5\n")
    write_start(folder, {"options": OPTIONS}, RunProgress(1, 2, 3))
    (folder / "convnext_atto-1_10.ckpt").write_bytes(b"")
    return folder


def run_tool(monkeypatch, *argv):
    """Run the tool in this process and return its exit status."""
    import report

    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, argv)])
    with pytest.raises(SystemExit) as end:
        run_script(report.main)
    return end.value.code


@pytest.fixture
def measured(monkeypatch):
    """Replace the evaluation by one that sees two images, and return the configurations that it was called with."""
    import report

    configs = []

    def measure(config, on_batch):
        configs.append(config)
        on_batch(np.zeros((2, 3, 4, 4), np.float32), np.array([0, 1]), np.float32([[2, 0], [2, 0]]))
        counts = ClassificationCounts(2)
        counts.update(np.float32([[2, 0], [2, 0]]), np.array([0, 1]))
        names = {0: "cat", 1: "<b>"}
        return SimpleNamespace(
            config=config,
            metrics={"top_1": 0.5, "calibration": [{"images": 2}]},
            class_names=names,
            counts=counts,
            image_name=lambda k: f"{config.data_dir}/val/{names[k]}/{k}.png",
        )

    monkeypatch.setattr(report, "measure_predictions", measure)
    monkeypatch.setattr(report, "prepare_device", lambda config: None)
    return configs


def test_report_tool_writes_the_page_into_the_folder_of_the_run(folder, monkeypatch, capsys):
    assert run_tool(monkeypatch, folder) == 0
    assert "<svg" in (folder / "report.html").read_text()
    size = (folder / "report.html").stat().st_size / 1000
    assert capsys.readouterr().out == f"{folder}/report.html: 1 epoch, without predictions, {size:.1f} kB\n"


def test_report_tool_classifies_with_the_options_of_the_run(folder, tmp_path, monkeypatch, measured):
    output = tmp_path / "page.html"
    assert run_tool(monkeypatch, folder, "--data_dir", tmp_path, "--output", output) == 0
    (config,) = measured
    assert config.ckpt_path == str(folder / "convnext_atto-1_10.ckpt") and config.data_dir == str(tmp_path)
    assert (config.dataset, config.val_split, config.batch_size, config.mode) == ("digits", "test", 16, 1)
    assert config.given.keys() >= {"dataset", "ckpt_path"} and "image_resize" not in config.given, "from the checkpoint"
    text = output.read_text()
    assert "val/&lt;b&gt;/1.png" in text and f"{tmp_path}/val" not in text


def test_report_tool_prefers_the_best_checkpoint_and_given_options(folder, tmp_path, monkeypatch, measured):
    (folder / "convnext_atto_best.ckpt").write_bytes(b"")
    assert run_tool(monkeypatch, folder, "--data_dir", tmp_path, "--batch_size", 4, "--restrict_classes", "True") == 0
    assert run_tool(monkeypatch, folder, "--data_dir", tmp_path, "--ckpt_path=other.ckpt") == 0
    first, second = measured
    assert first.ckpt_path == str(folder / "convnext_atto_best.ckpt") and first.batch_size == 4
    assert first.restrict_classes and second.ckpt_path == "other.ckpt"


def test_report_tool_leaves_the_number_format_of_the_run_out_for_an_exported_file(
    folder, tmp_path, monkeypatch, measured
):
    write_start(folder, {"options": {**OPTIONS, "val_amp_level": "O2"}}, RunProgress(1, 2, 3))
    for name in ("a.onnx", "a.ckpt"):
        assert run_tool(monkeypatch, folder, "--data_dir", tmp_path, "--ckpt_path", name) == 0
    assert [config.val_amp_level for config in measured] == ["O0", "O2"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (
            ["--batch_size", "4"],
            2,
            "'--batch_size' is an option of validate.py, which works with --data_dir FOLDER only",
        ),
        (["--data_dir", "images", "--batch_sise", "4"], 2, "batch_sise"),
        (["--data_dir", "images", "--probe", "knn"], 2, "a report shows predictions of a classifier"),
        (["--data_dir", "images", "--results_json", "a.json"], 2, "results_json: this tool writes a page only"),
        (["--output", "."], 1, "it is a folder"),
    ],
)
def test_report_tool_refuses_wrong_options(folder, monkeypatch, capsys, words, status, message):
    assert run_tool(monkeypatch, folder, *words) == status
    found = capsys.readouterr().err
    assert found.startswith("error: ") and message in found and not (folder / "report.html").exists()


def test_report_tool_refuses_a_folder_without_a_run_before_it_writes(tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, tmp_path) == 1
    assert "holds no run" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_report_tool_names_the_lack_of_checkpoints(folder, monkeypatch, capsys, measured):
    (folder / "convnext_atto-1_10.ckpt").unlink()
    assert run_tool(monkeypatch, folder, "--data_dir", ".") == 1
    assert "holds no checkpoint" in capsys.readouterr().err
