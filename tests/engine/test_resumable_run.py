"""A run that is captured and restored into new objects continues as without interruption."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.convert import read_ckpt, write_ckpt
from mindcv.engine import Callback, EarlyStopping, ResumableRun, create_trainer, weights_to_save
from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import RunDescription, read_snapshot, write_snapshot
from mindcv.loss import create_loss
from mindcv.models.layers import Dropout, SampleCounter
from mindcv.optim import create_optimizer
from mindcv.utils.errors import CheckpointError, UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((8, 4, 6)).astype(np.float32)
LABELS = RNG.integers(0, 3, (8, 4)).astype(np.int32)


class Loader:
    """A loader whose epochs have `num` batches."""

    drop_remainder = True

    def __init__(self, num=8):
        self.num = num

    def get_batch_size(self):
        return 4

    def get_dataset_size(self):
        return self.num

    def batches(self, epoch=0, start=0):
        return ((IMAGES[i], LABELS[i]) for i in range(start, self.num))


class Network(nn.Cell):
    """A network from images [B, 6] to logits [B, 3] with random drops, whose state is the count of samples."""

    def __init__(self, width):
        super().__init__()
        self.sample_counter = SampleCounter()
        self.hidden = nn.Dense(6, width, activation="relu")
        self.drop = Dropout(0.5, layer=0, seed=0, count=self.sample_counter.count)
        self.classifier = nn.Dense(width, 3)
        self.sample_counter.count.name = "sample_counter.count"  # as ConvNeXt calls it

    def construct(self, x):
        return self.classifier(self.drop(self.hidden(self.sample_counter(x))))


class Run:
    """A small network and all objects of its training that have a state."""

    def __init__(self, opt="adamw", ema=True, scale="dynamic", accumulation=2, width=8, callbacks=(), started=1.0):
        self.network = Network(width)
        rng = np.random.default_rng(1)
        for parameter in self.network.trainable_params():
            parameter.set_data(Tensor(0.3 * rng.standard_normal(parameter.shape).astype(np.float32)))
        optimizer = create_optimizer(self.network, opt, lr=[0.1, 0.05, 0.02, 0.01], weight_decay=0.05)
        self.trainer = create_trainer(
            *(self.network, create_loss("CE"), optimizer),
            loss_scale_type=scale,
            loss_scale=8.0,
            ema=ema,
            ema_decay=0.5,
            gradient_accumulation_steps=accumulation,
        )
        self.callbacks = callbacks
        self.run = ResumableRun(self.network, self.trainer.step, RunDescription(started, {"lr": 1}))

    def capture(self, progress):
        return self.run.capture(progress, self.callbacks)

    def restore(self, snapshot, progress):
        self.run.restore(snapshot, progress, self.callbacks)

    def arrays(self, progress):
        """Return copies of the captured arrays, because a snapshot shares the memory of the parameters."""
        return {name: array.copy() for name, array in self.capture(progress).arrays.items()}


def through_a_file(tmp_path, snapshot):
    path = tmp_path / "x.resume.safetensors"
    write_snapshot(path, snapshot)
    return read_snapshot(path)


@pytest.mark.parametrize("opt", ["adamw", "momentum", "lamb", "adan"])
def test_resumable_run_continues_bit_for_bit_after_restore(tmp_path, opt):
    whole = Run(opt)
    end = whole.trainer.train(1, Loader())
    first = Run(opt)
    middle = first.trainer.train(1, Loader(4))
    captured = through_a_file(tmp_path, first.capture(middle))

    second = Run(opt)
    state = second.trainer.begin(1, Loader())
    second.restore(replace(captured, progress=replace(captured.progress, steps_per_epoch=4)), state)
    assert (state.step, state.global_step) == (2, 2)
    state.is_epoch_done = False
    again = second.trainer.train(1, Loader(), progress=state)
    assert again.loss == end.loss and again.global_step == end.global_step == 4
    expected, found = whole.arrays(end), second.arrays(again)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    moved = [name for name, array in first.arrays(middle).items() if not np.array_equal(array, expected[name])]
    assert len(moved) > len(expected) / 2


def test_snapshot_holds_every_parameter_that_changes(tmp_path):
    run = Run()
    snapshot = through_a_file(tmp_path, run.capture(run.trainer.train(1, Loader(2))))
    arrays = snapshot.arrays
    weights = {parameter.name for parameter in run.network.trainable_params()}
    assert weights | {f"ema.{name}" for name in weights} < arrays.keys()
    assert arrays["network_state.sample_counter.count"] == 8  # two batches of four
    assert arrays["ema_state.num_updates"] == 1
    assert arrays["loss_scale.loss_scale"] == 8 and arrays["loss_scale.loss_scale_good_steps"] == 1
    assert arrays["optimizer.global_step"] == [1]
    assert len([name for name in arrays if name.startswith("optimizer.")]) >= 2 * len(weights) + 1
    assert not [name for name in arrays if "learning_rate" in name], "a changed schedule could not resume"
    assert snapshot.description.config == {"lr": 1} and snapshot.progress.global_step == 1


class Counting(Callback):
    def __init__(self, count=0):
        self.count = count

    def saved(self):
        return {"count": self.count}

    def restore(self, saved):
        self.count = saved["count"]


def test_resumable_run_restores_each_callback_by_its_class(tmp_path):
    run = Run(callbacks=[Counting(3), EarlyStopping(1)])
    captured = run.capture(run.trainer.begin(1, Loader()))
    callbacks = [EarlyStopping(2), Callback(), Counting()]
    other = Run(callbacks=callbacks)
    other.restore(through_a_file(tmp_path, captured), other.trainer.begin(1, Loader()))
    assert callbacks[2].count == 3 and callbacks[0].patience == 2


def test_resumable_run_gives_a_later_snapshot_a_start_that_is_not_earlier():
    """This also holds when a run continues from an older file, or when the clock was set back."""
    captured = Run(started=5.0).capture(Run().trainer.begin(1, Loader()))
    for started, expected in ((7.0, 7.0), (3.0, 5.0)):
        run = Run(started=started)
        state = run.trainer.begin(1, Loader())
        run.restore(captured, state)
        assert run.capture(state).description.started == expected


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"opt": "momentum"}, r"optimizer\..* and \d+ more differ"),
        ({"ema": False}, r"ema\..* differ"),
        ({"scale": "fixed"}, "loss_scale.loss_scale, loss_scale.loss_scale_good_steps differ"),
        ({"width": 9}, r"classifier\.\w+, .*differ"),
    ],
)
def test_resumable_run_refuses_another_run_and_changes_nothing(other, named):
    captured = Run().capture(RunProgress(1, 4, 8, epoch=1, step=2, global_step=2))
    run = Run(**other)
    state = run.trainer.begin(2, Loader(6))
    before, expected = run.arrays(state), state.as_dict()
    with pytest.raises(CheckpointError, match=f"is of another model, optimizer, ema or loss scale: {named}"):
        run.restore(captured, state)
    assert repr(state.as_dict()) == repr(expected)
    for name, array in run.arrays(state).items():
        np.testing.assert_array_equal(array, before[name])


def test_resumable_run_moves_the_schedule_when_the_batch_size_differs(capsys, tmp_path):
    """Half of an epoch is two of four steps or one of two. The optimizer reads the learning rate of that step."""
    run = Run(accumulation=1)
    middle = run.trainer.begin(2, Loader(4))
    middle.begin_epoch()
    for _ in range(2):
        middle.count_step(1.0, 0.1, 1.0, is_timed=False)
    run.trainer.step.optimizer.global_step.set_data(Tensor([2], ms.int32))
    captured = run.capture(middle)
    other = Run(accumulation=2)
    state = other.trainer.begin(2, Loader(4))
    other.restore(through_a_file(tmp_path, captured), state)
    assert (state.step, state.global_step) == (1, 1)
    assert other.trainer.step.optimizer.global_step.asnumpy() == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: an epoch has 2 steps of 8 images, not 4 of 4: step 2 becomes 1, and the schedule goes with it"
    )


def test_resumable_run_refuses_to_capture_averages_that_are_not_finite():
    run = Run()
    state = run.trainer.begin(1, Loader())
    run.capture(state)
    run.trainer.step.ema.averages["classifier.bias"].set_data(Tensor(np.float32([0, np.nan, 0])))
    with pytest.raises(UserError, match=r"weight ema\.classifier\.bias holds NaN or infinity: training stops"):
        run.capture(state)


def test_weights_to_save_holds_weights_and_their_averages(tmp_path):
    run = Run()
    run.trainer.train(1, Loader(4))
    weights = weights_to_save(run.network, run.trainer.step)
    write_ckpt(tmp_path / "a.ckpt", weights, {})
    arrays = read_ckpt(tmp_path / "a.ckpt")[0]
    for parameter in run.network.trainable_params():
        np.testing.assert_array_equal(arrays[parameter.name], parameter.asnumpy())
        assert not np.array_equal(arrays[f"ema.{parameter.name}"], parameter.asnumpy())
    assert len(arrays) == 2 * len(run.network.trainable_params())
    plain = Run(ema=False)
    names = {parameter.name for parameter in plain.network.trainable_params()}
    assert weights_to_save(plain.network, plain.trainer.step).keys() == names
