"""Messages are logged before a graph is compiled."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.engine import Callback, ProgressLog, Trainer, Validation, compiling, say_compiling


@pytest.mark.parametrize(
    ("device", "has_kernels", "words"),
    [
        ("CPU", True, "compiling the step, which usually takes 5 to 10 s, and longer for large models\n"),
        ("CPU", False, "compiling the step, which usually takes 10 to 60 s without the CPU kernels, and longer"),
        ("Ascend", False, "compiling the step, which may take minutes\n"),
    ],
)
def test_say_compiling_gives_the_usual_time_of_the_device_and_the_kernels(
    monkeypatch, capsys, device, has_kernels, words
):
    context = {"mode": ms.GRAPH_MODE, "device_target": device}
    monkeypatch.setattr(compiling, "ms", SimpleNamespace(get_context=context.get, GRAPH_MODE=ms.GRAPH_MODE))
    monkeypatch.setattr(compiling, "status", lambda: SimpleNamespace(is_used=has_kernels))
    say_compiling("the step")
    assert capsys.readouterr().err.startswith(words)


def test_say_compiling_logs_nothing_in_pynative_mode(capsys):
    say_compiling("the step")
    assert capsys.readouterr().err == ""


class Step:
    """A step whose loss is 1."""

    def set_train(self, is_training):
        pass

    def __call__(self, images, labels):
        return Tensor(1.0, ms.float32), Tensor(True)


class Loader:
    """An epoch of one batch."""

    drop_remainder = True

    def get_batch_size(self):
        return 2

    def get_dataset_size(self):
        return 1

    def batches(self, epoch=0, start=0):
        yield np.ones((2, 3), np.float32), np.zeros(2, np.int32)


def test_trainer_announces_the_compilation_of_step_and_validation_once(monkeypatch):
    said, network = [], nn.Dense(3, 3)
    monkeypatch.setattr("mindcv.engine.callbacks.say_compiling", said.append)

    class Look(Callback):
        def on_step_end(self, state):
            said.append(state.epoch)

    weights = {"weight": network.weight, "bias": network.bias}
    validation = Validation(weights, nn.Dense(3, 3), Loader(), 3)
    Trainer(Step()).train(2, Loader(), [ProgressLog(), Look(), validation])
    assert said == ["the training step", 1, "the network for validation", 2]
