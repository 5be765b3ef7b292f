"""Checks the errors of the optimizers: one sentence names the wrong argument, the value and the expected one."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindcv.optim import SGD, Adagrad, Adam, Momentum, NAdam, RMSProp, create_optimizer, freeze, weight_decay_groups
from mindcv.utils.errors import UserError

NAN = float("nan")
GROUPS = "must be a list of parameters, or of groups such as {'params': parameters, 'lr': 0.1}, got"


def make_params():
    return [Parameter(Tensor(np.ones((2, 3), np.float32)), name="weight")]


def refused(sentence):
    return pytest.raises(UserError, match=f"^{re.escape(sentence)}[^\n]*$")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"opt": None}, "opt must be one of the strings 'adagrad', 'adam', "),
        ({"lr": "a"}, "lr must be a number, a table of one rate per step, or a schedule, got 'a'"),
        ({"lr": ["a"]}, "lr must be a number, a table of one rate per step, or a schedule, got ['a']"),
        (
            {"lr": [[0.1], [0.1, 0.2]]},
            "lr must be a number, a table of one rate per step, or a schedule, got [[0.1], [",
        ),
        ({"lr": {"a": 1}}, "lr must be a number, a table of one rate per step, or a schedule, got {'a': 1}"),
        ({"lr": NAN}, "lr must be a number of at least 0, got nan"),
        ({"lr": True}, "lr must be a number of at least 0, got True"),
        ({"lr": -0.1}, "lr must be a number of at least 0, got -0.1"),
        ({"weight_decay": "a"}, "weight_decay must be a number of at least 0, got 'a'"),
        ({"weight_decay": NAN}, "weight_decay must be a number of at least 0, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0, got -0.1"),
        (
            {"weight_decay": nn.CosineDecayLR(0.0, 0.1, 3)},
            "weight_decay must be a number of at least 0, got a value of type Cosi",
        ),
        ({"momentum": 1.5}, "momentum must be a number of at least 0 and below 1, got 1.5"),
        ({"momentum": 1}, "momentum must be a number of at least 0 and below 1, got 1"),
        ({"momentum": None}, "momentum must be a number of at least 0 and below 1, got None"),
        ({"nesterov": "False"}, "nesterov must be True or False, got 'False'"),
        ({"weight_decay_filter": None}, "weight_decay_filter must be one of the strings 'auto', 'disable', "),
        ({"layer_decay": "0.9"}, "layer_decay must be a number above 0 and at most 1, got '0.9'"),
        ({"layer_decay": NAN}, "layer_decay must be a number above 0 and at most 1, got nan"),
        ({"loss_scale": None}, "loss_scale must be a number above 0, got None"),
        ({"schedule_decay": "a"}, "schedule_decay must be a number of at least 0, got 'a'"),
        ({"eps": [1e-8]}, "eps must be a number above 0, got [1e-08]"),
        ({"betas": 0.9}, "betas must be a list of 2 numbers, each above 0 and below 1, got 0.9"),
        ({"betas": "ab"}, "betas must be a list of 2 numbers, each above 0 and below 1, got 'ab'"),
        ({"betas": (0.9, NAN)}, "betas must be a list of 2 numbers, each above 0 and below 1, got (0.9, nan)"),
        ({"betas": (-0.1, 0.9)}, "betas must be a list of 2 numbers, each above 0 and below 1, got (-0.1, 0.9)"),
        (
            {"opt": "adan", "betas": (0.9, 0.9)},
            "betas must be a list of 3 numbers, each above 0 and below 1, got (0.9,",
        ),
        ({"opt": "sgd", "dampening": "a"}, "dampening must be a number of at least 0, got 'a'"),
        ({"opt": "rmsprop", "decay": 1.5}, "decay must be a number above 0 and below 1, got 1.5"),
        ({"opt": "rmsprop", "centered": "no"}, "centered must be True or False, got 'no'"),
        ({"opt": "adagrad", "accum": None}, "accum must be a number of at least 0, got None"),
    ],
)
def test_create_optimizer_names_a_wrong_argument(wrong, sentence):
    with refused(sentence):
        create_optimizer(make_params(), **{"opt": "adamw", **wrong})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, f"model_or_params {GROUPS} None"),
        ("weight", f"model_or_params {GROUPS} 'weight'"),
        (3, f"model_or_params {GROUPS} 3"),
        (make_params()[0], f"model_or_params {GROUPS} a value of type Parameter"),
        ({"params": make_params()}, f"model_or_params {GROUPS} a value of type dict"),
        ([Tensor(1.0, ms.float32)], f"model_or_params {GROUPS} a value of type Tensor among them"),
        ([*make_params(), {"params": make_params()}], f"model_or_params {GROUPS} parameters and groups in one list"),
        ([{"params": None}], f"params of a group {GROUPS} None"),
        ([{"params": ["weight"]}], f"params of a group {GROUPS} 'weight' among them"),
        (
            [{"params": make_params(), "lr": "a"}],
            "lr must be a number, a table of one rate per step, or a schedule, got 'a'",
        ),
        ([{"params": make_params(), "lr_scale": "a"}], "lr_scale must be a number of at least 0, got 'a'"),
        ([{"params": make_params(), "weight_decay": NAN}], "weight_decay must be a number of at least 0, got nan"),
        ([{"params": make_params(), "grad_centralization": "no"}], "grad_centralization must be True or False, got"),
    ],
)
@pytest.mark.parametrize("rule", ["disable", "auto"])
def test_create_optimizer_names_a_value_that_is_not_a_parameter(given, sentence, rule):
    with refused(sentence):
        create_optimizer(given, "adamw", weight_decay_filter=rule)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: SGD(make_params(), momentum=1.0), "momentum must be a number of at least 0 and below 1, got 1.0"),
        (lambda: SGD(make_params(), dampening=NAN), "dampening must be a number of at least 0, got nan"),
        (lambda: SGD(make_params(), weight_decay=NAN), "weight_decay must be a number of at least 0, got nan"),
        (lambda: Momentum(make_params(), 0.1, "a"), "momentum must be a number of at least 0 and below 1, got 'a'"),
        (lambda: Adagrad(make_params(), accum=-1.0), "accum must be a number of at least 0, got -1.0"),
        (lambda: Adagrad(None), f"params {GROUPS} None"),
        (
            lambda: Adam(make_params(), betas=0.9),
            "betas must be a list of 2 numbers, each above 0 and below 1, got 0.9",
        ),
        (lambda: Adam(make_params(), eps="a"), "eps must be a number above 0, got 'a'"),
        (lambda: Adam(make_params(), loss_scale="a"), "loss_scale must be a number above 0, got 'a'"),
        (lambda: Adam([]), "the optimizer got no parameters to train"),
        (lambda: NAdam(make_params(), schedule_decay=None), "schedule_decay must be a number of at least 0, got None"),
        (lambda: RMSProp(make_params(), momentum=NAN), "momentum must be a number of at least 0 and below 1, got nan"),
        (lambda: weight_decay_groups(None, 0.1, "auto"), f"params {GROUPS} None"),
        (lambda: freeze(None, ["a"]), "model must be a network (a mindspore.nn.Cell), got None"),
        (
            lambda: freeze(nn.Dense(1, 1), "weight"),
            "patterns must be a list of strings such as ['feature.0.*'], got 'w",
        ),
        (lambda: freeze(nn.Dense(1, 1), [1]), "patterns must be a list of strings such as ['feature.0.*'], got [1]"),
    ],
)
def test_optimizers_name_a_wrong_argument(call, sentence):
    with refused(sentence):
        call()


def test_create_optimizer_accepts_numpy_numbers():
    options = {"lr": 0.5, "weight_decay": 0.25, "momentum": 0.75, "loss_scale": 2.0}
    plain = create_optimizer(make_params(), "sgd", **options)
    of_numpy = create_optimizer(make_params(), "sgd", **{name: np.float32(value) for name, value in options.items()})
    for name in ("learning_rate", "momentum"):
        assert getattr(plain, name).asnumpy() == getattr(of_numpy, name).asnumpy()
    assert plain.weight_decays == of_numpy.weight_decays and plain.loss_scale == of_numpy.loss_scale
