"""Which parameters are decayed, by a table written by hand."""

import mindspore as ms
import pytest
from mindspore import Parameter
from mindspore.common.initializer import initializer

from mindcv.optim import is_decayed, weight_decay_groups
from mindcv.utils.errors import UserError

DECAYED = {
    "feature.0.0.weight": ((8, 3, 4, 4), True),
    "feature.0.1.gamma": ((8,), False),
    "feature.0.1.beta": ((8,), False),
    "feature.1.0.dwconv.weight": ((8, 1, 7, 7), True),
    "feature.1.0.dwconv.bias": ((8,), False),
    "feature.1.0.pwconv1.weight": ((32, 8), True),
    "feature.1.0.grn.gamma": ((1, 1, 1, 32), False),
    "feature.1.0.grn.beta": ((1, 1, 1, 32), False),
    "feature.1.0.gamma_": ((8,), False),
    "feature.1.1.gamma_": ((8, 1, 1), False),
    "norm.beta": ((8,), False),
    "classifier.weight": ((10, 8), True),
    "classifier.bias": ((10,), False),
    "vector": ((8,), False),
    "bias": ((2, 2), False),
    # A part of the path, not its end, decides nothing.
    "gamma.weight": ((2, 2), True),
    "alphabeta": ((2, 2), True),
}


def make_params():
    return [Parameter(initializer("zeros", shape, ms.float32), name=name) for name, (shape, _) in DECAYED.items()]


def test_is_decayed():
    assert {p.name: is_decayed(p) for p in make_params()} == {name: row[1] for name, row in DECAYED.items()}


@pytest.mark.parametrize("rule", ["auto", "norm_and_bias"])
def test_two_groups_and_their_order(rule):
    params = make_params()
    decayed, undecayed, order = weight_decay_groups(params, 0.05, rule)
    assert decayed["weight_decay"] == 0.05
    assert undecayed["weight_decay"] == 0.0
    assert [p.name for p in decayed["params"]] == [name for name, row in DECAYED.items() if row[1]]
    assert [p.name for p in undecayed["params"]] == [name for name, row in DECAYED.items() if not row[1]]
    assert order == {"order_params": params}


def test_disable_decays_everything():
    params = make_params()
    assert weight_decay_groups(params, 0.05, "disable") == [
        {"params": params, "weight_decay": 0.05},
        {"order_params": params},
    ]


def test_no_empty_group():
    bias = make_params()[2:3]
    assert weight_decay_groups(bias, 0.05, "auto") == [{"params": bias, "weight_decay": 0.0}, {"order_params": bias}]


def test_errors():
    with pytest.raises(UserError, match="auto, disable, norm_and_bias"):
        weight_decay_groups(make_params(), 0.05, "norm")
    with pytest.raises(UserError, match="no parameters"):
        weight_decay_groups([], 0.05, "auto")
