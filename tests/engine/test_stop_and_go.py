"""Tests of steps of several batches, and of runs that stop and continue."""

import json
import math
import signal
from dataclasses import replace
from unittest.mock import Mock

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.convert import weight_parameters
from mindcv.engine import (
    Callback,
    CheckpointManager,
    Checkpoints,
    EarlyStopping,
    Interruption,
    MetricsTable,
    ProgressLog,
    Snapshots,
    Trainer,
    create_trainer,
    steps_per_epoch,
)
from mindcv.engine.interruption import SIGNALS
from mindcv.engine.progress import RunProgress
from mindcv.loss import create_loss
from mindcv.models.layers import SampleCounter
from mindcv.optim import create_optimizer
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, Interrupted, UserError


class Loader:
    """A loader with epochs of `size` batches of 4 images [4]. The pixels hold the number of the batch, from 1."""

    def __init__(self, size, drop_remainder=True):
        self.size, self.drop_remainder = size, drop_remainder
        self.asked, self.open = [], 0

    def get_batch_size(self):
        return 4

    def get_dataset_size(self):
        return self.size

    def batches(self, epoch=0, start=0):
        self.asked.append((epoch, start))
        return self._batches(start)

    def _batches(self, start):
        self.open += 1
        try:
            for number in range(start, self.size):
                yield np.full((4, 4), number + 1, np.float32), np.zeros(4, np.int32)
        finally:
            self.open -= 1


class Step:
    """A training step that returns the losses of a list and records which batches make each step."""

    def __init__(self, losses):
        self.losses = iter(losses)
        self.steps, self.parts = [], []

    def set_train(self, is_training):
        pass

    def accumulate(self, images, labels):
        self.parts.append(int(images.asnumpy()[0, 0]))

    def drop_parts(self):
        self.parts = []

    def __call__(self, images, labels):
        self.accumulate(images, labels)
        self.steps.append(self.parts)
        self.parts = []
        return Tensor(next(self.losses), ms.float32), Tensor(True)


class Diary(Callback):
    """A callback that records its calls."""

    def __init__(self):
        self.entries = []

    def on_train_begin(self, state):
        self.entries.append("begin")

    def on_step_end(self, state):
        self.entries.append((state.epoch, state.step, state.global_step, state.loss, state.lr))

    def on_epoch_end(self, state):
        self.entries.append(("epoch", state.epoch, state.train_loss))

    def on_train_end(self, state):
        self.entries.append("end")

    def on_interrupt(self, state):
        self.entries.append("interrupt")


@pytest.mark.parametrize(
    ("drop_remainder", "accumulation", "size", "steps"),
    [
        (True, 2, 5, [[1, 2], [3, 4]]),
        (False, 2, 5, [[1, 2], [3, 4], [5]]),
        (False, 2, 4, [[1, 2], [3, 4]]),
        (True, 3, 3, [[1, 2, 3]]),
        (False, 4, 2, [[1, 2]]),
        (True, 1, 2, [[1], [2]]),
    ],
)
def test_trainer_accumulates_several_batches_into_a_step(drop_remainder, accumulation, size, steps):
    step, loader = Step([1.0] * 3), Loader(size, drop_remainder)
    state = Trainer(step, accumulation=accumulation).train(1, loader)
    assert step.steps == steps and not step.parts and loader.open == 0
    assert (state.step, state.steps_per_epoch, state.images_per_step) == (len(steps), len(steps), 4 * accumulation)


def test_steps_per_epoch_refuses_an_epoch_without_a_full_step():
    assert steps_per_epoch(Loader(7), 3) == 2 and steps_per_epoch(Loader(7, False), 3) == 3
    with pytest.raises(UserError, match="gradient_accumulation_steps is 3, and an epoch has 2 batches"):
        steps_per_epoch(Loader(2), 3)


def test_trainer_with_accumulation_gives_the_weights_of_the_larger_batch():
    """`create_trainer` makes one trainer for two batches a step, and another for batches twice as large."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((12, 4)).astype(np.float32), rng.integers(0, 3, 12).astype(np.int32)
    start, found = rng.standard_normal((3, 4)).astype(np.float32), []
    for size, accumulation in ((4, 1), (2, 2)):
        network = nn.Dense(4, 3)
        network.weight.set_data(Tensor(start))
        network.bias.set_data(Tensor(np.zeros(3, np.float32)))
        optimizer = create_optimizer(network, "sgd", lr=0.5, momentum=0.9)
        trainer = create_trainer(
            *(network, create_loss("CE"), optimizer), gradient_accumulation_steps=accumulation, ema=True, ema_decay=0.5
        )
        loader = Loader(12 // size)
        loader.get_batch_size = lambda size=size: size
        loader.batches = lambda epoch, first, size=size: (
            (images[i : i + size], labels[i : i + size]) for i in range(first * size, 12, size)
        )
        state = trainer.train(2, loader)
        averages = {name: average.asnumpy() for name, average in trainer.step.ema.averages.items()}
        found.append((state.loss, {"w": network.weight.asnumpy(), "b": network.bias.asnumpy(), **averages}))
    (loss, one), (other_loss, other) = found
    assert loss == pytest.approx(other_loss, rel=1e-5) and len(one) == 4
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, atol=1e-6, err_msg=name)
    assert np.abs(one["w"] - start).max() > 0.01


# Runs that stop and continue


class Stop(Callback):
    """A callback that simulates a signal after the given number of steps."""

    def __init__(self, interruption, after):
        self.interruption, self.after = interruption, after

    def on_step_end(self, state):
        if state.global_step == self.after:
            self.interruption.signal = signal.SIGTERM


def saved(progress):
    """Return the progress as it is saved in a file and read again."""
    return RunProgress(**json.loads(json.dumps(progress.as_dict())))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("after", [1, 2, 3, 5, 6])
def test_trainer_continues_a_stopped_run_as_without_interruption(after, accumulation):
    losses, table, size = [8.0, 4.0, 2.0, 1.0, 0.5, 0.25], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 3 * accumulation
    whole, whole_step = Diary(), Step(losses)
    Trainer(whole_step, table, accumulation=accumulation).train(2, Loader(size), [whole])

    loader, step, interruption, diaries = Loader(size), Step(losses), Interruption(), (Diary(), Diary())
    trainer = Trainer(step, table, accumulation=accumulation)
    state = trainer.begin(2, loader)
    with pytest.raises(Interrupted, match=f"by SIGTERM after epoch {(after + 2) // 3}, step ") as raised:
        trainer.train(2, loader, [Stop(interruption, after), diaries[0]], state, interruption)
    assert raised.value.status == 143 and loader.open == 0

    trainer = Trainer(step, table, accumulation=accumulation)
    again = trainer.begin(2, loader)
    again.restore(saved(state))
    final = trainer.train(2, loader, [diaries[1]], again, Interruption())
    assert diaries[0].entries.pop() == "interrupt" and diaries[1].entries.pop(0) == "begin"
    assert diaries[0].entries + diaries[1].entries == whole.entries and step.steps == whole_step.steps
    assert (final.epoch, final.step, final.global_step, final.is_done) == (2, 3, 6, True)
    epoch, place = divmod(after - 1, 3)
    assert loader.asked == [(0, 0), (1, 0)][: epoch + 1] + [(epoch, (place + 1) * accumulation), (1, 0)][: 2 - epoch]


def test_trainer_stops_when_another_process_gets_a_signal(monkeypatch):
    """The second of three processes has the signal. The test replaces the sum over all processes."""
    asked, diary = [], Diary()

    def sum_integers(group, values):
        asked.append(len(values))
        is_second_look = len(values) == len(SIGNALS) and asked.count(len(SIGNALS)) == 2
        return values + np.array([number == signal.SIGINT for number in SIGNALS]) if is_second_look else values

    monkeypatch.setattr(Group, "sum_integers", sum_integers)
    with pytest.raises(Interrupted, match="by SIGINT after epoch 1, step 2 of 4") as raised:
        trainer = Trainer(Step([1.0] * 4), group=Group(0, 3))
        trainer.train(1, Loader(4), [diary], interruption=Interruption())
    assert raised.value.status == 130 and len(diary.entries) == 4 and diary.entries[-1] == "interrupt"
    assert asked == [1, 1, len(SIGNALS)] * 2 + [1], (
        "failures before and after a step, signals; all wait for the one that saves"
    )


# Errors during training


class Broken(Loader):
    """A loader that cannot read batch `bad` (counted from 1) in epoch `bad_epoch` (counted from 0)."""

    def __init__(self, size, bad, bad_epoch=0):
        super().__init__(size)
        self.bad, self.bad_epoch = bad, bad_epoch

    def _batches(self, start):
        epoch = self.asked[-1][0]
        for number, batch in enumerate(super()._batches(start), start + 1):
            if (epoch, number) == (self.bad_epoch, self.bad):
                raise DataError("cannot decode 'x.jpg'")
            yield batch


class Raise(Callback):
    """A callback that fails at the end of one epoch."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_epoch_end(self, state):
        if state.epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("bad_step", [2, 3])
def test_trainer_tells_callbacks_of_a_data_error_and_the_run_can_be_continued(accumulation, bad_step):
    """When the image can be read again, the run continues as without interruption."""
    losses, table, size = [8.0, 4.0, 2.0, 1.0, 0.5, 0.25], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 3 * accumulation
    whole, first, second = Diary(), Diary(), Diary()
    Trainer(Step(losses), table, accumulation=accumulation).train(2, Loader(size), [whole])

    step, broken = Step(losses), Broken(size, bad_step * accumulation, bad_epoch=1)
    trainer = Trainer(step, table, accumulation=accumulation)
    state = trainer.begin(2, broken)
    with pytest.raises(DataError, match="x.jpg"):
        trainer.train(2, broken, [first], state)
    assert first.entries.pop() == "interrupt" and broken.open == 0
    again = trainer.begin(2, Loader(size))
    again.restore(saved(state))
    assert (again.epoch, again.step, again.is_epoch_done) == (2, bad_step - 1, False)
    trainer.train(2, Loader(size), [second], again)
    assert first.entries + second.entries[1:] == whole.entries


class Counting(nn.Cell):
    """A network that counts its samples, as a network with stochastic depth does."""

    def __init__(self):
        super().__init__()
        self.counter, self.dense = SampleCounter(), nn.Dense(4, 3)

    def construct(self, x):
        return self.dense(self.counter(x))


def test_trainer_does_not_count_samples_of_an_unfinished_step():
    """One batch of the second step is accumulated when its other batch cannot be read."""
    network = Counting()
    optimizer = create_optimizer(network, "sgd", lr=0.1)
    trainer = create_trainer(network, create_loss("CE"), optimizer, gradient_accumulation_steps=2)
    with pytest.raises(DataError):
        trainer.train(1, Broken(4, 4))
    assert network.counter.count.asnumpy() == 8


def test_trainer_repeats_the_end_of_an_epoch_after_it_failed(tmp_path):
    """The table gets no second row of the epoch, and early stopping does not count it twice."""

    class Worse(Callback):
        def on_epoch_end(self, state):
            state.metrics = {"top_1": 1 / state.epoch}

    trainer, loader = Trainer(Step([1.0] * 9)), Loader(1)
    stopping, table = EarlyStopping(3), MetricsTable(tmp_path)
    state = trainer.begin(9, loader)
    with pytest.raises(UserError, match="disk full"):
        trainer.train(9, loader, [Worse(), stopping, table, Raise(3, UserError("disk full"))], state)
    kept = [*json.loads(json.dumps([stopping.saved(), table.saved()])), saved(state)]
    assert [row["epoch"] for row in kept[1]["rows"]] == [1, 2] and kept[2].metrics == {}
    stopping, table, again = EarlyStopping(3), MetricsTable(tmp_path), trainer.begin(9, loader)
    for part, before in zip((stopping, table, again), kept):
        part.restore(before)
    final = trainer.train(9, loader, [Worse(), stopping, table], again)
    assert final.epoch == 4 and [row["epoch"] for row in table.rows] == [1, 2, 3, 4]


class Saver:
    """A stand-in for the writer of snapshots."""

    def __init__(self, error=None):
        self.error, self.places = error, []

    def begin(self):
        self.is_marked = True

    def end_without_save(self):
        self.is_marked = False

    def save(self, progress):
        if self.error:
            raise self.error
        self.places.append((progress.epoch, progress.step))
        return f"{progress.epoch}_{progress.step}"


def snapshots_into(files):
    return Snapshots(files, lambda progress: progress, interval=9)


def test_snapshots_callback_saves_no_run_without_a_new_step(capsys):
    """Neither a new run nor a resumed run is saved, because nothing has changed."""
    files, trainer = Saver(), Trainer(Step([1.0] * 4))
    broken = Broken(4, 2)
    state = trainer.begin(1, broken)
    for _ in range(2):
        with pytest.raises(DataError):
            trainer.train(1, broken, [snapshots_into(files)], state)
    assert files.places == [(1, 1)]
    assert capsys.readouterr().err == "saved 1_1, from which --resume auto goes on\n"


def test_snapshots_callback_removes_its_mark_when_the_run_fails_before_its_first_step():
    files = Saver()
    with pytest.raises(DataError):
        Trainer(Step([1.0] * 4)).train(1, Broken(4, 1), [snapshots_into(files)])
    assert files.places == [] and not files.is_marked


def test_trainer_raises_the_first_error_when_saving_fails_too(capsys):
    with pytest.raises(DataError):
        Trainer(Step([1.0] * 4)).train(1, Broken(4, 2), [snapshots_into(Saver(UserError("no space left")))])
    assert capsys.readouterr().err == "warning: the run could not be saved: no space left\n"


def test_snapshots_callback_saves_nothing_after_a_step_that_raises(capsys):
    """Some of the weights may have been updated by the step that failed."""

    class Breaking(Step):
        def __call__(self, images, labels):
            if len(self.steps) == 1:
                raise RuntimeError("out of memory")
            return super().__call__(images, labels)

    files = Saver()
    with pytest.raises(RuntimeError, match="out of memory"):
        Trainer(Breaking([1.0] * 4)).train(1, Loader(4), [snapshots_into(files)])
    assert files.places == []
    assert "the run is not saved, because its weights may be updated in part" in capsys.readouterr().err


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_snapshots_callback_saves_nothing_when_the_loss_is_not_finite(loss, capsys):
    """Otherwise `--resume auto` would continue from the bad step and not from the last good one."""
    files = Saver()
    with pytest.raises(UserError, match="training stops"):
        Trainer(Step([1.0, loss])).train(1, Loader(4), [snapshots_into(files)])
    assert files.places == []
    assert "because its weights have diverged: --resume auto" in capsys.readouterr().err


def test_progress_log_closes_its_bar_when_the_loss_is_not_finite(monkeypatch):
    """Otherwise the terminal would show the error on the line of the bar."""
    bars = []
    monkeypatch.setattr("mindcv.engine.callbacks.tqdm", lambda **options: bars.append(Mock()) or bars[-1])
    progress = ProgressLog()
    progress.is_terminal = True
    with pytest.raises(UserError, match="training stops"):
        Trainer(Step([1.0, math.nan])).train(1, Loader(4), [progress])
    (bar,) = bars
    bar.close.assert_called_once_with()


@pytest.mark.parametrize("is_here", [True, False])
def test_trainer_ends_all_processes_when_one_has_an_error(monkeypatch, is_here):
    """One of two processes cannot read its second batch. Both fail before the step in which one would wait."""
    asked, diary, step = [], Diary(), Step([1.0] * 4)

    def sum_integers(group, values):
        asked.append(list(values))
        return values + (len(values) == 1 and not is_here and len(asked) == 4)

    monkeypatch.setattr(Group, "sum_integers", sum_integers)
    error, words = (DataError, "x.jpg") if is_here else (UserError, "1 of the 2 processes failed; their logs")
    with pytest.raises(error, match=words):
        loader = Broken(4, 2) if is_here else Loader(4)
        Trainer(step, group=Group(0, 2)).train(1, loader, [diary], interruption=Interruption())
    assert len(step.steps) == 1 and diary.entries[-1] == "interrupt"
    assert asked == [[0], [0], [0] * len(SIGNALS), [is_here], [0]], "the last is the wait for the one that saves"


def test_trainer_takes_no_step_when_the_run_is_finished(capsys):
    loader, diary = Loader(2), Diary()
    trainer = Trainer(Step([1.0] * 4))
    state = trainer.train(2, loader)
    again = trainer.begin(2, loader)
    again.restore(saved(state))
    assert Trainer(Step([])).train(2, loader, [diary], again).global_step == 4
    assert diary.entries == ["begin", "end"] and len(loader.asked) == 2
    assert capsys.readouterr().err == "nothing is left to do: the run ended with epoch 2 of 2\n"


def test_trainer_logs_when_a_run_is_past_its_number_of_epochs(capsys):
    """A resumed run may have trained more epochs than --epoch_size."""
    for is_epoch_done, words in (
        (True, "nothing is left to do: the run has trained 2 epochs already, and epoch_size is 1\n"),
        (False, "warning: the run ends with epoch 2, which it was in, and epoch_size is 1\n"),
    ):
        trainer = Trainer(Step([1.0] * 2))
        state = trainer.begin(1, Loader(2))
        state.epoch, state.step, state.global_step, state.is_epoch_done = 2, 1, 3, is_epoch_done
        assert trainer.train(1, Loader(2), [], state).epoch == 2
        assert capsys.readouterr().err == words


def test_trainer_continues_a_finished_run_with_more_epochs():
    loader = Loader(2)
    state = Trainer(Step([1.0] * 4)).train(2, loader)
    again = Trainer(Step([])).begin(3, loader)
    again.restore(saved(state))
    assert Trainer(Step([0.5] * 2)).train(3, loader, progress=again).global_step == 6
    assert [epoch for epoch, _ in loader.asked] == [0, 1, 2]


def test_trainer_completes_and_saves_the_epoch_of_a_shortened_run(tmp_path):
    """The run was stopped in its third epoch and is resumed with two epochs."""
    state = RunProgress(4, 2, 4, epoch=3, step=1, global_step=5, is_epoch_done=False)
    again = RunProgress(2, 2, 4)
    again.restore(saved(state))
    saver = Checkpoints(CheckpointManager(tmp_path, "m"), weight_parameters(nn.Dense(4, 3)), {}, interval=10)
    assert Trainer(Step([1.0])).train(2, Loader(2), [saver], again).global_step == 6
    assert [path.name for path in tmp_path.iterdir()] == ["m-3_2.ckpt"]


@pytest.mark.parametrize(
    ("steps", "images", "place"),
    [
        (10, 8, (2, 5, 15)),
        (5, 16, (2, 2, 7)),  # 40 images are two steps and a half
        (20, 4, (2, 10, 30)),
        (4, 8, (2, 4, 8)),  # fewer images than were done
    ],
)
def test_run_progress_restores_its_place_when_the_batch_size_differs(steps, images, place):
    before = RunProgress(3, 10, 8, epoch=2, step=5, global_step=15, loss_sum=10.0, is_epoch_done=False)
    state = RunProgress(3, steps, images)
    state.restore(saved(before))
    assert (state.epoch, state.step, state.global_step) == place
    assert state.train_loss == pytest.approx(2.0)
    done = replace(before, step=10, global_step=20, is_epoch_done=True)
    state = RunProgress(3, steps, images)
    state.restore(saved(done))
    assert (state.step, state.global_step, state.is_epoch_done) == (steps, 2 * steps, True)
