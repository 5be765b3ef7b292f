"""Tests of the event files for TensorBoard. TensorBoard's own reader reads them."""

import json
import sys
import time

import pytest

from mindcv.config import PretrainConfig, TrainConfig, ValidateConfig, parse_args
from mindcv.engine import EventFile, MetricsTable
from mindcv.engine.progress import RunProgress
from mindcv.recipe import _no_tensorboard
from mindcv.utils.errors import UserError


def read(folder):
    """Return what TensorBoard finds in a folder: for each curve a list of (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder)).Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        found[tag] = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in accumulator.Scalars(tag)]
    return found


def raw_steps(folder):
    """Return the step of each event with a value, of all files, as a reader sees them that knows no restarts."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    paths = sorted(folder.glob("*tfevents*"))
    return [e.step for path in paths for e in EventFileLoader(str(path)).Load() if e.HasField("summary")]


def train(folder, epochs, restored=None, metrics=None):
    """Let the callbacks see epochs of 10 steps; returns what they save at the end."""
    table = MetricsTable(folder)
    events = EventFile(folder, table)
    progress = RunProgress(9, 10, 4)
    if restored:
        table.restore(restored[0])
        events.restore(restored[1])
    for callback in (table, events):
        callback.on_train_begin(progress)
    for epoch in epochs:
        progress.epoch, progress.step, progress.global_step = epoch, 10, 10 * epoch
        progress.lr, progress.loss_sum, progress.metrics = 0.1 / epoch, 30.0 / epoch, dict(metrics or {})
        for callback in (table, events):
            callback.on_epoch_end(progress)
    saved = json.loads(json.dumps([table.saved(), events.saved()]))
    events.close()
    return saved


def test_event_file_holds_the_rows_of_metrics_csv(tmp_path):
    before = time.time()
    train(tmp_path, [1, 2], metrics={"val_loss": 0.5, "top_1": 0.75, "top_5": 1.0})
    found = read(tmp_path)
    assert found["train_loss"] == [(10, 3.0), (20, 1.5)] and found["lr"] == [(10, 0.1), (20, 0.05)]
    assert found["top_1"] == [(10, 0.75), (20, 0.75)] and found["val_loss"] == [(10, 0.5), (20, 0.5)]
    assert found.keys() == {"train_loss", "lr", "val_loss", "top_1", "top_5", "seconds"}, "there was no speed to tell"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    times = [event.wall_time for event in EventAccumulator(str(tmp_path)).Reload().Scalars("lr")]
    assert before <= times[0] <= times[1] <= time.time()


def test_event_file_of_a_pretraining_run_has_no_curves_of_validation(tmp_path):
    train(tmp_path, [1])
    assert read(tmp_path).keys() == {"train_loss", "lr", "seconds"}


def test_resumed_run_continues_the_curves_without_a_step_twice(tmp_path):
    saved = train(tmp_path, [1, 2])
    train(tmp_path, [3], saved)  # killed after this epoch, which no snapshot holds
    assert raw_steps(tmp_path) == [10, 20, 30]
    last = train(tmp_path, [3, 4], saved)
    assert raw_steps(tmp_path) == [10, 20, 30, 40]
    assert read(tmp_path)["train_loss"] == [(10, 3.0), (20, 1.5), (30, 1.0), (40, 0.75)]
    assert last[1]["times"][:2] == saved[1]["times"], "the first epochs keep their times"


def test_running_tensorboard_sees_a_resumed_run_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    saved = train(tmp_path, [1, 2])
    train(tmp_path, [3], saved)
    reader = EventAccumulator(str(tmp_path)).Reload()
    for _ in range(3):
        train(tmp_path, [3, 4], saved)
        assert [event.step for event in reader.Reload().Scalars("lr")] == [10, 20, 30, 40]
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*tfevents*"))]
    assert len(sizes) == 2 and sizes[0] == 0 < sizes[1]


def test_event_file_has_earlier_epochs_when_it_is_turned_on_at_a_resume(tmp_path):
    table = MetricsTable(tmp_path)
    progress = RunProgress(9, 10, 4, epoch=1, step=10, global_step=10, lr=0.1, loss_sum=1.0)
    table.on_epoch_end(progress)
    train(tmp_path, [2], [table.saved(), {"times": []}])
    assert raw_steps(tmp_path) == [10, 20]


def test_event_file_leaves_files_of_others_alone(tmp_path):
    (tmp_path / "events.out.tfevents.1.other").write_bytes(b"")
    (tmp_path / "events.out.tfevents.1.mindcv").write_bytes(b"")  # emptied by an earlier process
    train(tmp_path, [1])
    names = sorted(path.name for path in tmp_path.glob("*tfevents*"))
    assert len(names) == 2 and names[0] == "events.out.tfevents.1.other"


def test_tensorboard_without_its_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r'run pip install -e "\.\[tensorboard\]"'):
        EventFile(tmp_path, MetricsTable(tmp_path))
    model = ["--model", "convnext_atto"]
    for config_class in (TrainConfig, PretrainConfig):
        (problem,) = _no_tensorboard(parse_args([*model, "--tensorboard", "True"], config_class))
        assert problem.startswith("tensorboard: ") and 'pip install -e ".[tensorboard]"' in problem
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tensorboard: true\n")
    shared = parse_args(["-c", str(recipe), "--ckpt_path", "a.ckpt"], ValidateConfig)
    assert _no_tensorboard(shared) == []
