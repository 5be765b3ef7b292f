"""Tests of the order of events in training, and of the callbacks."""

import csv
import json
import math
import re
import signal
import sys
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image

from mindcv.convert import read_ckpt, weight_parameters
from mindcv.engine import (
    Callback,
    CheckpointManager,
    Checkpoints,
    DistillationLoss,
    EarlyStopping,
    Interruption,
    MetricsTable,
    ProgressLog,
    Trainer,
    Validation,
    create_trainer,
)
from mindcv.engine.progress import RunProgress
from mindcv.engine.trainer import images_left_out
from mindcv.loss import create_loss
from mindcv.models.layers import Dense, LayerNorm
from mindcv.optim import create_optimizer
from mindcv.utils.distributed import Group
from mindcv.utils.errors import Interrupted, UserError


class Step:
    """A training step that returns the losses of a list."""

    def __init__(self, losses):
        self.losses = iter(losses)
        self.is_training = False

    def set_train(self, is_training):
        self.is_training = is_training

    def __call__(self, images, labels):
        assert self.is_training and isinstance(images, Tensor) and isinstance(labels, Tensor)
        return Tensor(next(self.losses), ms.float32), Tensor(True)


class Loader:
    """A loader with epochs of `size` batches of 4 images [4]."""

    drop_remainder = True

    def __init__(self, size):
        self.size = size
        self.epochs, self.open = [], 0

    def get_batch_size(self):
        return 4

    def get_dataset_size(self):
        return self.size

    def batches(self, epoch=0, start=0):
        self.epochs.append(epoch)
        self.open += 1
        try:
            for _ in range(start, self.size):
                yield np.ones((4, 4), np.float32), np.zeros(4, np.int32)
        finally:
            self.open -= 1


@pytest.mark.parametrize(
    ("num_batches", "accumulation", "num_images", "expected"),
    [(3, 1, 12, 0), (3, 1, 15, 3), (3, 2, 15, 7), (4, 2, 16, 0)],
)
def test_images_left_out_counts_images_that_fill_no_step(num_batches, accumulation, num_images, expected):
    """The batches have 4 images."""
    loader = Loader(num_batches)
    assert images_left_out(loader, accumulation, num_images) == expected
    assert images_left_out(loader, accumulation, 3 * num_images + 2, num_processes=3) == 3 * expected + 2
    loader.drop_remainder = False
    assert images_left_out(loader, accumulation, num_images) == 0


class Diary(Callback):
    """A callback that records its calls, together with its name."""

    def __init__(self, name, entries):
        self.name, self.entries = name, entries

    def _write(self, event, state):
        self.entries.append((self.name, event, state.epoch, state.step, state.global_step, state.is_last_epoch))

    def on_train_begin(self, state):
        self._write("begin", state)

    def on_step_end(self, state):
        self._write("step", state)

    def on_epoch_end(self, state):
        self._write("epoch", state)

    def on_train_end(self, state):
        self._write("end", state)


def test_trainer_calls_callbacks_in_order():
    entries, loader = [], Loader(2)
    Trainer(Step([1.0] * 4)).train(2, loader, [Diary("a", entries), Diary("b", entries)])
    expected = [("begin", 0, 0, 0, False)]
    expected += [("step", 1, 1, 1, False), ("step", 1, 2, 2, False), ("epoch", 1, 2, 2, False)]
    expected += [("step", 2, 1, 3, True), ("step", 2, 2, 4, True), ("epoch", 2, 2, 4, True), ("end", 2, 2, 4, True)]
    assert entries == [(name, *event) for event in expected for name in "ab"]
    assert loader.epochs == [0, 1] and loader.open == 0


def test_run_progress_has_the_figures_of_the_epoch(processes):
    seen = []

    class Look(Callback):
        def on_epoch_end(self, state):
            seen.append((state.loss, state.lr, state.train_loss, state.images_per_step, dict(state.metrics)))
            state.metrics = {"top_1": 0.5}

    table = [0.1, 0.2, 0.3, 0.4]
    state = Trainer(Step([4.0, 2.0, 1.0, 0.0]), table, Group(0, 3)).train(2, Loader(2), [Look()])
    assert seen == [(2.0, 0.2, 3.0, 12, {}), (0.0, 0.4, 0.5, 12, {})]
    assert math.isnan(Trainer(Step([1.0])).train(1, Loader(1)).lr) and state.global_step == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_trainer_stops_when_the_loss_is_not_finite(bad):
    entries = []
    with pytest.raises(UserError, match=f"the loss is {bad} at epoch 2, step 1: training stops"):
        Trainer(Step([1.0, 1.0, bad, 1.0])).train(2, Loader(2), [Diary("a", entries)])
    assert [entry[1] for entry in entries] == ["begin", "step", "step", "epoch"]


def test_run_progress_measures_the_speed_without_untimed_steps():
    state = RunProgress(2, 5, 8)
    state.begin_epoch()
    state.count_step(1.0, 0.1, 60.0, is_timed=False)
    assert math.isnan(state.images_per_s) and state.train_seconds == 60
    for _ in range(4):
        state.count_step(1.0, 0.1, 0.5, is_timed=True)
    assert state.images_per_s == 4 * 8 / 2 and state.train_seconds == 62
    state.begin_epoch()
    for _ in range(5):
        state.count_step(1.0, 0.1, 0.8, is_timed=True)
    assert state.images_per_s == pytest.approx(5 * 8 / 4) and state.train_seconds == pytest.approx(4)
    assert (state.epoch, state.step, state.global_step) == (2, 5, 10)


def test_trainer_times_all_steps_except_its_first(monkeypatch):
    """The clock is read at the start of an epoch and at the end of each step."""
    ticks = iter([0.0, 100.0, 101.0, 103.0, 200.0, 202.0, 204.0, 206.0])
    monkeypatch.setattr("mindcv.engine.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    speeds = []

    class Look(Callback):
        def on_epoch_end(self, state):
            speeds.append((state.images_per_s, state.train_seconds))

    Trainer(Step([1.0] * 6)).train(2, Loader(3), [Look()])
    assert speeds == [(2 * 4 / 3, 103.0), (3 * 4 / 6, 6.0)]


def test_progress_log_writes_lines_without_a_terminal(capsys):
    Trainer(Step([2.0, 1.0, 0.5, 0.5]), [0.1] * 4).train(1, Loader(4), [ProgressLog(log_interval=2)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/1 step 2/4  loss 1.0000  lr 1.00e-01  ")
    assert lines[1].startswith("epoch 1/1 step 4/4  loss 1.0000  ") and lines[1].endswith("0:00:00 left")


def test_progress_log_and_table_leave_out_the_speed_after_the_first_step(tmp_path, capsys):
    """The speed is unknown after the first step, so the line leaves it out and the field of the table is empty."""
    Trainer(Step([2.0, 1.0]), [0.1] * 2).train(2, Loader(1), [ProgressLog(log_interval=1), MetricsTable(tmp_path)])
    first, second = capsys.readouterr().err.splitlines()
    assert first == "epoch 1/2 step 1/1  loss 2.0000  lr 1.00e-01"
    assert re.fullmatch(r"epoch 2/2 step 1/1  loss 1.0000  lr 1.00e-01  \d+\.\d images/s  0:00:00 left", second)
    assert [row["images_per_s"] == "" for row in read_table(tmp_path / "metrics.csv")] == [True, False]


def test_progress_log_leaves_out_the_time_left_when_a_run_resumes_in_a_validation(capsys):
    """The process logs the end of the epoch before it has done a step, so it knows no time of a step."""
    trainer, loader = Trainer(Step([])), Loader(2)
    progress = trainer.begin(1, loader)
    progress.begin_epoch()
    for _ in range(2):
        progress.count_step(0.5, 0.1, 1.0, is_timed=False)
    trainer.train(1, loader, [ProgressLog()], progress)
    assert capsys.readouterr().err == "epoch 1/1 step 2/2  loss 0.5000  lr 1.00e-01\n"


class Alternating(nn.Cell):
    """A network whose logits are its bias."""

    def __init__(self):
        super().__init__()
        self.bias = ms.Parameter(Tensor(np.zeros(3, np.float32)), name="bias")

    def construct(self, x):
        return self.bias + 0.0 * x[:, :3]


def test_validation_measures_the_trained_weights_when_due(capsys):
    trained, network, due = Alternating(), Alternating(), []
    trained.bias.set_data(Tensor(np.float32([0, 1, 0])))
    loader = Loader(3)
    validation = Validation({"bias": trained.bias}, network, loader, 3, interval=2)

    class Look(Callback):
        def on_epoch_end(self, state):
            due.append(dict(state.metrics))
            trained.bias.set_data(Tensor(np.float32([1, 0, 0])))  # class 0 is what every label says

    Trainer(Step([1.0] * 5)).train(5, Loader(1), [validation, Look()])
    loss = math.log(math.e + 2) - 1
    right = {"val_loss": pytest.approx(loss, rel=1e-6), "top_1": 1.0, "top_5": 1.0}
    assert due == [{}, right, {}, right, right]
    np.testing.assert_array_equal(network.bias.asnumpy(), [1, 0, 0])
    lines = [line for line in capsys.readouterr().err.splitlines() if "validated" in line]
    assert lines[0] == f"epoch 2/5 validated: val_loss {loss:.4f}  top_1 1.0000  top_5 1.0000"


def test_validation_stops_when_a_signal_has_arrived():
    interruption, network = Interruption(), Alternating()
    interruption.signal = signal.SIGTERM
    validation = Validation({"bias": network.bias}, network, Loader(2), 3, interruption=interruption)
    with pytest.raises(Interrupted, match="by SIGTERM in a validation; --resume auto repeats that"):
        validation.on_epoch_end(RunProgress(1, 1, 1))


def test_run_whose_validation_is_not_finite_is_not_saved(capsys):
    trained, network, saved = Alternating(), Alternating(), []

    class Save(Callback):
        def on_interrupt(self, progress):
            saved.append(progress.epoch)

    class Break(Callback):
        def on_epoch_end(self, progress):
            trained.bias.set_data(Tensor(np.float32([np.nan, 0, 0])))

    callbacks = [Break(), Validation({"bias": trained.bias}, network, Loader(2), 3), Save()]
    found = "logits are not finite in the validation of epoch 1: training stops; a lower lr, clip_grad or"
    with pytest.raises(UserError, match=found):
        Trainer(Step([1.0] * 2)).train(2, Loader(1), callbacks)
    assert saved == [] and "because its weights have diverged: --resume auto" in capsys.readouterr().err


def test_checkpoints_are_saved_when_due(tmp_path, capsys):
    weights = weight_parameters(nn.Dense(4, 3))
    saver = Checkpoints(CheckpointManager(tmp_path, "m"), weights, {"options": {"model": "m"}}, interval=2)
    Trainer(Step([1.0] * 6)).train(3, Loader(2), [saver])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-2_2.ckpt", "m-3_2.ckpt"]
    metadata = read_ckpt(tmp_path / "m-3_2.ckpt")[1]
    assert metadata == {"options": {"model": "m"}, "epoch": 3, "step": 6, "metrics": {}}
    assert capsys.readouterr().err == f"saved {tmp_path / 'm-3_2.ckpt'}\n"


class Measure(Callback):
    """A stand-in for validation in every second epoch."""

    def on_epoch_end(self, state):
        if state.epoch % 2 == 0:
            state.metrics = {"val_loss": 1 / state.epoch, "top_1": 0.25, "top_5": 0.5}


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_table_writes_a_row_for_each_epoch_and_the_learning_curve(tmp_path):
    Trainer(Step([4.0, 2.0, 1.0, 0.5]), [0.1, 0.2, 0.3, 0.4]).train(2, Loader(2), [Measure(), MetricsTable(tmp_path)])
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,step,lr,train_loss,val_loss,top_1,top_5,images_per_s,seconds"
    first, second = read_table(tmp_path / "metrics.csv")
    assert [first[k] for k in ("epoch", "step", "lr", "train_loss", "val_loss", "top_1")] == [
        *("1", "2", "0.2", "3.0", "", "")
    ]
    assert [second[k] for k in ("epoch", "step", "lr", "train_loss", "val_loss", "top_1", "top_5")] == [
        *("2", "4", "0.4", "0.75", "0.5", "0.25", "0.5")
    ]
    assert float(second["images_per_s"]) > 0 and float(second["seconds"]) >= 0
    with Image.open(tmp_path / "learning_curve.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 400 and len(picture.getcolors(2**24)) > 10


def test_metrics_table_has_no_columns_of_validation_without_one(tmp_path):
    Trainer(Step([4.0, 2.0]), [0.1, 0.2]).train(2, Loader(1), [MetricsTable(tmp_path)])
    rows = read_table(tmp_path / "metrics.csv")
    assert [list(row) for row in rows] == 2 * [["epoch", "step", "lr", "train_loss", "images_per_s", "seconds"]]
    assert [row["train_loss"] for row in rows] == ["4.0", "2.0"]


def test_metrics_table_renames_an_earlier_table(tmp_path, capsys):
    for text in ("first\n", "second\n"):
        (tmp_path / "metrics.csv").write_text(text)
        Trainer(Step([1.0])).train(1, Loader(1), [MetricsTable(tmp_path)])
    assert (tmp_path / "metrics.1.csv").read_text() == "first\n"
    assert (tmp_path / "metrics.2.csv").read_text() == "second\n"
    assert len(read_table(tmp_path / "metrics.csv")) == 1
    assert f"kept as {tmp_path / 'metrics.2.csv'}" in capsys.readouterr().err


class Figures(Callback):
    """A stand-in for validation that takes the metric of each epoch from a list. None means no validation."""

    def __init__(self, name, values):
        self.name, self.values = name, iter(values)

    def on_epoch_end(self, state):
        value = next(self.values)
        state.metrics = {} if value is None else {self.name: value}


def epochs_until_stop(name, values, num_epochs=9, **options):
    """Return how many epochs a run takes when validation gives `values`, of which the last one is repeated."""
    values = [*values, *values[-1:] * num_epochs]
    stopping = EarlyStopping(metric=name, **options)
    return Trainer(Step([1.0] * num_epochs)).train(num_epochs, Loader(1), [Figures(name, values), stopping]).epoch


@pytest.mark.parametrize(
    ("name", "values", "options", "epochs"),
    [
        ("top_1", [0.1, 0.2, 0.3], {"patience": 1}, 4),
        ("top_1", [0.1, 0.2, 0.3], {"patience": 3}, 6),
        ("top_1", [0.3, 0.2, 0.2, 0.31, 0.1], {"patience": 3}, 7),  # 0.31 counts from the start again
        ("top_1", [0.1 * epoch for epoch in range(9)], {"patience": 1}, 9),
        ("val_loss", [0.1, 0.2, 0.3], {"patience": 2}, 3),
        ("val_loss", [0.3, 0.2, 0.1], {"patience": 2}, 5),
        ("top_1", [0.3, None, None, 0.2, None, 0.1], {"patience": 2}, 6),  # only the validated count
        ("val_loss", [math.nan, math.nan, 1.0, math.nan], {"patience": 3}, 6),
        ("val_loss", [math.nan], {"patience": 2}, 2),
        ("top_1", [0.5], {"patience": 8}, 9),  # due in the last epoch
    ],
)
def test_early_stopping_stops_after_patience_validations_without_improvement(name, values, options, epochs):
    assert epochs_until_stop(name, values, **options) == epochs


def test_early_stopping_logs_why_training_stops(capsys):
    epochs_until_stop("top_1", [0.1, 0.25, 0.2, 0.2], patience=2)
    assert capsys.readouterr().err == (
        "epoch 4/9: training stops, top_1 was best at epoch 2 with 0.2500 and has not improved in 2 validations\n"
    )
    epochs_until_stop("val_loss", [math.nan], patience=2)
    assert "training stops, val_loss was not finite in 2 validations\n" in capsys.readouterr().err
    epochs_until_stop("top_1", [0.1], patience=1)
    assert capsys.readouterr().err.endswith("has not improved in 1 validation\n")
    epochs_until_stop("top_1", [0.5], patience=8)  # the run ends anyway
    assert capsys.readouterr().err == ""
    epochs_until_stop("top_1", [None], patience=1)
    assert "early stopping saw no validation" in capsys.readouterr().err


def test_early_stopping_leaves_the_same_files_as_a_finished_run(tmp_path, capsys):
    weights, entries, loader = weight_parameters(nn.Dense(4, 3)), [], Loader(2)
    callbacks = [
        Figures("top_1", [0.5, 0.4, 0.3, 0.2]),
        EarlyStopping(2),
        Checkpoints(CheckpointManager(tmp_path, "m"), weights, {}, interval=10),
        MetricsTable(tmp_path),
        Diary("last", entries),
    ]
    state = Trainer(Step([1.0] * 20)).train(10, loader, callbacks)
    assert (state.epoch, state.global_step, loader.epochs) == (3, 6, [0, 1, 2])
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"m-3_2.ckpt", "m_best.ckpt", "metrics.csv", "learning_curve.png"}
    assert read_ckpt(tmp_path / "m-3_2.ckpt")[1]["metrics"] == {"top_1": 0.3}
    assert [row["top_1"] for row in read_table(tmp_path / "metrics.csv")] == ["0.5", "0.4", "0.3"]
    assert entries[-2:] == [("last", "epoch", 3, 2, 6, True), ("last", "end", 3, 2, 6, True)]
    assert read_ckpt(tmp_path / "m_best.ckpt")[1]["metrics"] == {"top_1": 0.5}, "the best, though it was not due"
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"saved {tmp_path / 'm-3_2.ckpt'}",
        f"best: epoch 1 of 3 with top_1 0.5000, saved as {tmp_path / 'm_best.ckpt'}",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patience": 0}, "patience must be a whole number of at least 1, got 0"),
        ({"patience": 1.5}, "patience must be a whole number of at least 1, got 1.5"),
        ({"patience": 1, "metric": ["top_1"]}, "metric must be one of the strings 'top_1', 'val_loss', got"),
        ({"patience": 1, "metric": "top1"}, "'top1' is not known; did you mean 'top_1'.*top_1, val_loss"),
    ],
)
def test_early_stopping_refuses_wrong_options(options, words):
    with pytest.raises(UserError, match=words):
        EarlyStopping(**options)


def test_metrics_table_warns_and_draws_no_curve_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    Trainer(Step([1.0])).train(1, Loader(1), [MetricsTable(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("warning: learning_curve.png will not be drawn: ") and 'run pip install -e ".[plots]"' in line
    )


def test_create_trainer_makes_a_trainer_whose_loss_falls():
    network = nn.Dense(4, 3)
    optimizer = create_optimizer(network, "sgd", lr=0.5, momentum=0.0)
    trainer = create_trainer(network, create_loss("CE"), optimizer, loss_scale_type="dynamic", clip_grad=True)
    losses = []

    class Look(Callback):
        def on_step_end(self, state):
            losses.append(state.loss)

    trainer.train(1, Loader(5), [Look()])
    assert all(after < before for before, after in zip(losses, losses[1:]))


def test_training_in_float16_works_after_an_exception_inside_another_gradient():
    def mistake(x):
        raise ValueError("a mistake of the user")

    with pytest.raises(ValueError, match="a mistake"):
        ms.value_and_grad(mistake, None, nn.Dense(3, 3).trainable_params())(ms.ops.ones((1, 3)))
    network = nn.SequentialCell(LayerNorm(4), Dense(4, 3))
    optimizer = create_optimizer(network, "adamw", lr=0.1)
    state = create_trainer(network, create_loss("CE"), optimizer, amp_level="O2").train(1, Loader(2))
    assert math.isfinite(state.loss) and state.global_step == 2


@pytest.mark.parametrize("is_distilled", [False, True])
def test_create_trainer_numbers_the_samples_of_each_split(is_distilled, monkeypatch):
    loss, numbered = create_loss("JSD", num_splits=2), []
    loss = DistillationLoss(loss) if is_distilled else loss
    monkeypatch.setattr("mindcv.engine.trainer.number_samples", lambda network, *numbers: numbered.append(numbers))
    for each in (loss, create_loss("CE")):
        network = nn.Dense(4, 3)
        create_trainer(network, each, create_optimizer(network, "sgd", lr=0.1))
    assert numbered == [(0, 1, 2), (0, 1, 1)]


def test_create_trainer_refuses_zero_gradient_accumulation_steps():
    network = nn.Dense(4, 3)
    with pytest.raises(UserError, match="gradient_accumulation_steps must be a whole number of at least 1, got 0"):
        create_trainer(
            *(network, create_loss("CE"), create_optimizer(network, "sgd", lr=0.1)), gradient_accumulation_steps=0
        )


@pytest.mark.parametrize("clip_value", [0, -1.0, math.nan])
def test_create_trainer_refuses_a_clip_value_that_clips_nothing(clip_value):
    network = nn.Dense(4, 3)
    optimizer = create_optimizer(network, "sgd", lr=0.1)
    with pytest.raises(UserError, match="clip_value must be a number above 0, got"):
        create_trainer(network, create_loss("CE"), optimizer, clip_grad=True, clip_value=clip_value)


def test_create_trainer_refuses_parts_that_do_not_belong_together():
    network, other, loss = nn.Dense(4, 3), nn.Dense(4, 3), create_loss("CE")
    optimizer = create_optimizer(network, "sgd", lr=0.1)
    for parts, says in [
        ((other, loss, optimizer), "the optimizer holds 2 parameters that are not in the network, such as 'weight'"),
        ((network, optimizer, loss), "loss must be a function of logits and labels, got "),
        ((network, None, optimizer), "loss must be a function of logits and labels, got NoneType"),
        ((network, loss, None), "optimizer must be an optimizer, as create_optimizer makes it, got NoneType"),
    ]:
        with pytest.raises(UserError, match=says):
            create_trainer(*parts)


def test_early_stopping_and_metrics_table_continue_after_restore(tmp_path):
    """Early stopping continues its count, and the table has the rows of before and after the restore."""
    values = [0.5, 0.4, 0.3, 0.2]
    stopping, table = EarlyStopping(3), MetricsTable(tmp_path)
    Trainer(Step([1.0] * 2)).train(2, Loader(1), [Figures("top_1", values), stopping, table])
    kept = json.loads(json.dumps([stopping.saved(), table.saved()]))
    before = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(before + "3,3,half a row")

    state = RunProgress(9, 1, 4, epoch=2, step=1, global_step=2)
    stopping, table = EarlyStopping(3), MetricsTable(tmp_path)
    stopping.restore(kept[0])
    table.restore(kept[1])
    table.on_train_begin(state)
    assert (tmp_path / "metrics.csv").read_text() == before
    final = Trainer(Step([1.0] * 2)).train(9, Loader(1), [Figures("top_1", values[2:]), stopping, table], state)
    assert final.epoch == 4 and [row["top_1"] for row in read_table(tmp_path / "metrics.csv")] == list(map(str, values))
    assert not (tmp_path / "metrics.1.csv").exists()
