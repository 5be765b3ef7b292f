"""Tests of a trainer that starts a step before the loss of the last step is known."""

import math
import signal
import threading

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindcv.engine import (
    Callback,
    Interruption,
    ProgressLog,
    ResumableRun,
    Snapshots,
    SnapshotWriter,
    Trainer,
    create_trainer,
)
from mindcv.engine.snapshot import RunDescription, find_newest
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, Interrupted, UserError


class Loader:
    """A loader that records in `events` when a batch is made. `bad` is a batch that cannot be read."""

    drop_remainder = True

    def __init__(self, size, events, bad=None):
        self.size, self.events, self.bad = size, events, bad

    def get_batch_size(self):
        return 4

    def get_dataset_size(self):
        return self.size

    def batches(self, epoch=0, start=0):
        for number in range(start, self.size):
            if number + 1 == self.bad:
                raise DataError("cannot decode 'x.jpg'")
            self.events.append(f"data {number + 1}")
            rng = np.random.default_rng([epoch, number])
            yield rng.standard_normal((4, 4)).astype(np.float32), rng.integers(0, 3, 4).astype(np.int32)


class Loss:
    """The loss of a step on a device that works on its own: the device is done when someone has asked for the loss."""

    def __init__(self, value, number, events):
        self.value, self.number, self.events = value, number, events

    def asnumpy(self):
        self.events.append(f"loss {self.number}")
        return np.float32(self.value)


class Step:
    """A training step on a simulated device. It returns at once, and records in `events` when it is started."""

    def __init__(self, losses, events):
        self.losses, self.events, self.number, self.num_parts = losses, events, 0, 0

    def set_train(self, is_training):
        pass

    def accumulate(self, images, labels):
        self.events.append("part")
        self.num_parts += 1

    def drop_parts(self):
        self.num_parts = 0

    def __call__(self, images, labels):
        self.number += 1
        self.num_parts = 0
        self.events.append(f"start {self.number}")
        return Loss(self.losses[self.number - 1], self.number, self.events), Tensor(True)


class Diary(Callback):
    """A callback that records its calls, and how many steps were started before each."""

    def __init__(self, step, events, waits=()):
        self.step, self.events, self.waits = step, events, waits
        self.started = []

    def reads_weights(self, global_step):
        return global_step in self.waits

    def on_step_end(self, progress):
        self.events.append(f"end {progress.global_step}")
        self.started.append(self.step.number)

    def on_epoch_end(self, progress):
        self.events.append("epoch")

    def on_interrupt(self, progress):
        self.events.append(f"save {progress.global_step} of {self.step.number}")


def run(runs_ahead=True, losses=(1.0,) * 4, bad=None, waits=(), callbacks=(), interruption=None, **options):
    """Train an epoch of 4 batches, and return its events and the numbers of steps that a callback saw."""
    events = []
    step = Step(losses, events)
    diary = Diary(step, events, waits)
    trainer = Trainer(step, runs_ahead=runs_ahead, **options)
    error = None
    try:
        trainer.train(1, Loader(4, events, bad), [*callbacks, diary], interruption=interruption)
    except (UserError, Interrupted) as raised:
        error = raised
    return events, diary.started, error


def test_trainer_prepares_a_batch_and_starts_a_step_before_it_asks_for_the_last_loss():
    events, started, _ = run()
    assert events == [
        *("data 1", "start 1"),
        *("data 2", "start 2"),
        *("data 3", "loss 1", "end 1", "start 3"),
        *("data 4", "loss 2", "end 2", "start 4"),
        *("loss 3", "end 3", "loss 4", "end 4", "epoch"),
    ]
    assert started == [2, 3, 4, 4]


def test_trainer_waits_for_each_loss_when_it_does_not_run_ahead():
    events, started, _ = run(runs_ahead=False)
    assert events[:8] == ["data 1", "start 1", "loss 1", "end 1", "data 2", "start 2", "loss 2", "end 2"]
    assert started == [1, 2, 3, 4]


def test_trainer_starts_no_step_before_a_callback_has_read_the_weights():
    events, started, _ = run(waits=(2,))
    assert started == [2, 2, 4, 4] and events.index("end 2") < events.index("start 3")


def test_callback_reads_the_weights_of_every_step_by_default():
    class Own(Callback):
        def on_step_end(self, progress):
            pass

    assert Own().reads_weights(1) and not Callback().reads_weights(1) and not ProgressLog().reads_weights(1)
    assert run(callbacks=[Own()])[1] == [1, 2, 3, 4]


def test_trainer_prepares_a_batch_while_several_processes_run_a_step(monkeypatch):
    """The processes agree after each step, so that all losses are asked for before the next step is started."""
    monkeypatch.setattr(Group, "sum_integers", lambda group, values: values)
    events, started, _ = run(group=Group(0, 2))
    assert events[:8] == ["data 1", "start 1", "data 2", "loss 1", "end 1", "start 2", "data 3", "loss 2"]
    assert started == [1, 2, 3, 4]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_with_different_callbacks_wait_for_each_other_in_the_same_order(monkeypatch, accumulation):
    """Rank 0 has callbacks that read the weights, and the other ranks have none."""
    asked = {}

    def sum_integers(group, values):
        asked.setdefault(group.rank, []).append(len(values))
        return values

    monkeypatch.setattr(Group, "sum_integers", sum_integers)
    for rank, waits in ((0, (1, 2)), (1, ())):
        options = {"interruption": Interruption(), "accumulation": accumulation}
        _, started, _ = run(group=Group(rank, 2), waits=waits, **options)
        assert started == [1, 2, 3, 4][: 4 // accumulation]
    assert asked[0] == asked[1]


def test_trainer_accumulates_no_part_before_a_callback_has_read_the_weights(monkeypatch):
    monkeypatch.setattr(Group, "sum_integers", lambda group, values: values)
    for group, waits in ((Group(0, 2), ()), (Group(), (1,))):
        events, _, _ = run(group=group, waits=waits, accumulation=2)
        assert events.index("end 1") < [i for i, event in enumerate(events) if event == "part"][1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("runs_ahead", [False, True])
def test_trainer_stops_and_saves_nothing_after_a_loss_that_is_not_finite(bad, runs_ahead):
    events, _, error = run(runs_ahead, losses=(1.0, bad, 1.0, 1.0))
    assert f"the loss is {bad} at epoch 1, step 2: training stops" in str(error)
    assert "end 1" in events and not {"end 2", "end 3", "epoch"} & set(events)
    assert not any(event.startswith("save") for event in events)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("runs_ahead", [False, True])
def test_trainer_finishes_and_saves_the_last_step_when_a_batch_cannot_be_read(runs_ahead, accumulation):
    events, _, error = run(runs_ahead, bad=4, accumulation=accumulation)
    last = 3 // accumulation
    assert isinstance(error, DataError) and events[-1] == f"save {last} of {last}" and f"end {last}" in events


class FullDisk(Callback):
    """Fails after step 2, and does not look at the weights."""

    def reads_weights(self, global_step):
        return False

    def on_step_end(self, progress):
        if progress.global_step == 2:
            raise UserError("the disk is full")


@pytest.mark.parametrize("runs_ahead", [False, True])
def test_trainer_saves_the_step_whose_weights_are_there_when_a_callback_fails(runs_ahead):
    events, _, error = run(runs_ahead, callbacks=[FullDisk()])
    last = 3 if runs_ahead else 2
    assert str(error) == "the disk is full" and events[-1] == f"save {last} of {last}"


@pytest.mark.parametrize("losses", [(1.0, 1.0, math.nan, 1.0), (1.0, 1.0, "lost", 1.0)])
def test_trainer_saves_nothing_when_a_callback_fails_and_the_step_after_it_too(losses):
    events, _, error = run(losses=losses, callbacks=[FullDisk()])
    assert str(error) == "the disk is full" and not any(event.startswith("save") for event in events)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("runs_ahead", [False, True])
def test_trainer_stops_after_a_signal_with_the_weights_of_the_step_it_counts(runs_ahead, accumulation):
    interruption = Interruption()

    class Signal(Callback):
        def reads_weights(self, global_step):
            return False

        def on_step_end(self, progress):
            interruption.signal = signal.SIGTERM

    events, _, error = run(runs_ahead, callbacks=[Signal()], interruption=interruption, accumulation=accumulation)
    last = 2 if runs_ahead else 1
    assert isinstance(error, Interrupted) and f"after epoch 1, step {last} of" in str(error)
    assert events[-1] == f"save {last} of {last}"


class WaitingStep(nn.Cell):
    """A step with an operator that does not end before `event`. It records whether the event came."""

    def __init__(self, event):
        super().__init__()
        self.seen = []

        def wait(mean):
            self.seen.append(event.wait(timeout=20))
            return mean

        self.wait = ops.Custom(wait, lambda shape: shape, lambda dtype: dtype, func_type="pyfunc")

    def construct(self, images, labels):
        return ops.reshape(self.wait(ops.reshape(ops.mean(images), (1,))), ()), labels


def test_trainer_asks_for_the_next_batch_while_an_operator_runs():
    """MindSpore itself returns before the operator has ended. The operator waits for the next batch to be asked for."""
    asked = threading.Event()

    class Telling(Loader):
        def batches(self, epoch=0, start=0):
            batches = super().batches(epoch, start)
            yield next(batches)
            asked.set()
            yield from batches

    step = WaitingStep(asked)
    progress = Trainer(step, runs_ahead=True).train(1, Telling(3, []))
    assert step.seen == [True] * 3 and progress.global_step == 3


@pytest.mark.usefixtures("tools")
def test_simulated_device_gives_a_time_for_both_kinds_of_loop():
    from simulate_device import seconds_per_step

    assert all(seconds_per_step(0.001, 0.001, ahead, num_steps=2) >= 0.001 for ahead in (False, True))


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, pytest.param(ms.GRAPH_MODE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_trainer_that_runs_ahead_saves_the_same_bits(mode, accumulation, tmp_path):
    """The runs save their state after each second step and at the end of each epoch."""
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        waiting, ahead = (_saved_run(tmp_path / name, name == "ahead", accumulation) for name in ("waiting", "ahead"))
    finally:
        ms.set_context(mode=before)
    assert list(waiting) == list(ahead) and len(waiting) == 4
    for name, (losses, arrays) in waiting.items():
        assert ahead[name][0] == losses and ahead[name][1].keys() == arrays.keys()
        for parameter, array in arrays.items():
            assert ahead[name][1][parameter].tobytes() == array.tobytes(), parameter


def _saved_run(folder, runs_ahead, accumulation):
    """Train two epochs of 3 steps, and return loss, sum of losses and arrays of each snapshot."""
    folder.mkdir()
    rng, found = np.random.default_rng(0), {}
    network = nn.Dense(4, 3)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    optimizer = create_optimizer(network, "adamw", lr=[0.1, 0.2, 0.1, 0.05, 0.02, 0.01], weight_decay=0.1)
    trainer = create_trainer(
        *(network, create_loss("CE"), optimizer),
        **{"gradient_accumulation_steps": accumulation, "ema": True, "ema_decay": 0.5, "runs_ahead": runs_ahead},
    )
    snapshots = ResumableRun(network, trainer.step, RunDescription(0.0))

    def capture(progress):
        return snapshots.capture(progress, [])

    class Keeping(SnapshotWriter):
        def save(self, snapshot):
            path = super().save(snapshot)
            _, read = find_newest(folder)
            found[path.name] = (read.progress.loss, read.progress.loss_sum), read.arrays
            return path

    saving = Snapshots(Keeping(folder, "m"), capture, step_interval=2)
    trainer.train(2, Loader(3 * accumulation, []), [ProgressLog(), saving])
    return found
