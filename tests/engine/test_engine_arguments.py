"""Training and evaluation refuse a wrong argument in one sentence with its name, its value and the expected values."""

import re

import pytest
from mindspore import nn

from mindcv.data import create_dataset, create_loader
from mindcv.engine import DistillationLoss, Trainer, apply_amp, create_trainer, evaluate
from mindcv.engine.callbacks import Checkpoints, ProgressLog, Snapshots
from mindcv.engine.ema import WeightAverage
from mindcv.engine.loss_scale import DynamicLossScale, FixedLossScale, create_loss_scale
from mindcv.loss import create_loss
from mindcv.utils.distributed import Group
from mindcv.utils.errors import UserError

NAN = float("nan")
NO_LOADER = "loader must be the result of create_loader(dataset, batch_size), got"


def refused(sentence):
    return pytest.raises(UserError, match=f"^{re.escape(sentence)}[^\n]*$")


@pytest.fixture(scope="module")
def dataset():
    return create_dataset("digits")


@pytest.mark.parametrize("num_epochs", [1.5, "1", None, -1, True])
def test_train_refuses_a_wrong_number_of_epochs(num_epochs, dataset):
    with refused(f"num_epochs must be a whole number of at least 0, got {num_epochs!r}"):
        Trainer(None).train(num_epochs, create_loader(dataset, 8))


@pytest.mark.parametrize("callbacks", [ProgressLog(), [print], "callbacks", None])
def test_train_refuses_objects_that_are_not_callbacks(callbacks, dataset):
    with refused("callbacks must be a list of callbacks of mindcv.engine, got "):
        Trainer(None).train(1, create_loader(dataset, 8), callbacks)


def test_train_and_evaluate_refuse_a_data_set_in_place_of_a_loader(dataset):
    with refused(f"{NO_LOADER} a value of type ImageDataset"):
        Trainer(None).train(1, dataset)
    with refused(f"{NO_LOADER} a value of type ImageDataset"):
        evaluate(nn.Dense(1, 1), dataset, 10, Group())
    with refused(f"{NO_LOADER} None"):
        Trainer(None).train(1, None)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"network": None}, "network must be a network (a mindspore.nn.Cell), got None"),
        ({"num_classes": "10"}, "num_classes must be a whole number of at least 1, got '10'"),
        ({"group": None}, "group must be a mindcv.utils.distributed.Group; Group() is a single process, got None"),
    ],
)
def test_evaluate_names_a_wrong_argument(wrong, sentence, dataset):
    arguments = {"network": nn.Dense(1, 1), "loader": create_loader(dataset, 8), "num_classes": 10, "group": Group()}
    with refused(sentence):
        evaluate(**{**arguments, **wrong})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"network": None}, "network must be a network (a mindspore.nn.Cell), got None"),
        ({"amp_level": None}, "amp_level must be one of the strings 'O0', 'O1', 'O2', 'O3', got None"),
        ({"amp_dtype": 16}, "amp_dtype must be one of the strings 'bfloat16', 'float16', got 16"),
        ({"loss_scale": "a"}, "loss_scale must be a number above 0, got 'a'"),
        ({"loss_scale": NAN}, "loss_scale must be a number above 0, got nan"),
        ({"loss_scale_type": None}, "loss_scale_type must be one of the strings 'auto', 'dynamic', 'fixed', got None"),
        ({"ema": "no"}, "ema must be True or False, got 'no'"),
        ({"ema": True, "ema_decay": NAN}, "ema_decay must be a number of at least 0 and at most 1, got nan"),
        ({"ema": True, "ema_warmup": "a"}, "ema_warmup must be a number of at least 0, got 'a'"),
        ({"clip_grad": True, "clip_value": None}, "clip_value must be a number above 0, got None"),
        ({"gradient_accumulation_steps": 1.5}, "gradient_accumulation_steps must be a whole number of at least 1, got"),
    ],
)
def test_create_trainer_names_a_wrong_argument(wrong, sentence):
    network = nn.Dense(2, 2)
    optimizer = nn.SGD(network.trainable_params())
    with refused(sentence):
        create_trainer(**{"network": network, "loss": create_loss(), "optimizer": optimizer, **wrong})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: apply_amp(None, "O1"), "network must be a network (a mindspore.nn.Cell), got None"),
        (lambda: apply_amp(nn.Dense(1, 1), "O1", [1]), "amp_cast_list: layer must be one of the strings"),
        (lambda: create_loss_scale("fixed", 2, "no"), "is_float16 must be True or False, got 'no'"),
        (lambda: FixedLossScale(0), "value must be a number above 0, got 0"),
        (lambda: DynamicLossScale(window=0), "window must be a whole number of at least 1, got 0"),
        (lambda: ProgressLog(0), "log_interval must be a whole number of at least 1, got 0"),
        (lambda: Checkpoints(None, {}, {}, interval=0), "interval must be a whole number of at least 1, got 0"),
        (lambda: Snapshots(None, None, step_interval=0.5), "step_interval must be a whole number of at least 1, got"),
        (lambda: WeightAverage(None), "network must be a network (a mindspore.nn.Cell), got None"),
        (lambda: DistillationLoss(create_loss(), None), "distillation must be one of the strings 'hard', 'soft', got"),
        (lambda: DistillationLoss(create_loss(), alpha=NAN), "alpha of the distillation must be a number of at least"),
        (lambda: DistillationLoss(create_loss(), tau="1"), "tau must be a number above 0, got '1'"),
    ],
)
def test_functions_of_training_name_a_wrong_argument(call, sentence):
    with refused(sentence):
        call()
