"""Checks the errors of the schedules: one sentence names the argument, the value found and the expected one."""

import re

import numpy as np
import pytest

from mindcv import scheduler as s
from mindcv.utils.errors import UserError

NAN = float("nan")
SPAN = {"steps_per_epoch": 2, "epochs": 4}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"scheduler": None}, "scheduler must be one of the strings 'constant', 'cosine_decay', "),
        ({"steps_per_epoch": 5.5}, "steps_per_epoch must be a whole number of at least 1, got 5.5"),
        ({"steps_per_epoch": "5"}, "steps_per_epoch must be a whole number of at least 1, got '5'"),
        ({"steps_per_epoch": True}, "steps_per_epoch must be a whole number of at least 1, got True"),
        ({"num_epochs": 2.5}, "num_epochs must be a whole number of at least 1, got 2.5"),
        ({"warmup_epochs": 0.5}, "warmup_epochs must be a whole number of at least 0, got 0.5"),
        ({"decay_epochs": None}, "decay_epochs must be a whole number of at least 1, got None"),
        ({"num_cycles": 1.5}, "num_cycles must be a whole number of at least 1, got 1.5"),
        ({"lr": "a"}, "lr must be a number of at least 0, got 'a'"),
        ({"lr": None}, "lr must be a number of at least 0, got None"),
        ({"min_lr": [0.1]}, "min_lr must be a number of at least 0, got [0.1]"),
        ({"warmup_factor": None}, "warmup_factor must be a number of at least 0, got None"),
        ({"warmup_lr": "a"}, "warmup_lr must be a number of at least 0, got 'a'"),
        ({"decay_rate": "0.1"}, "decay_rate must be a number of at least 0, got '0.1'"),
        ({"cycle_decay": NAN}, "cycle_decay must be a number of at least 0, got nan"),
        ({"lr_epoch_stair": "False"}, "lr_epoch_stair must be True or False, got 'False'"),
        ({"milestones": 30}, "milestones must be a list of whole numbers, each of at least 0, got 30"),
        ({"milestones": [3, -1]}, "milestones must be a list of whole numbers, each of at least 0, got [3, -1]"),
        ({"milestones": [1.5]}, "milestones must be a list of whole numbers, each of at least 0, got [1.5]"),
        ({"milestones": [60, 30]}, "milestones: the epochs must be in rising order, got [60, 30]"),
    ],
)
def test_create_scheduler_names_a_wrong_argument(wrong, sentence):
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}[^\n]*$"):
        s.create_scheduler(**{"steps_per_epoch": 2, "scheduler": "multi_step_decay", **wrong})


def test_create_scheduler_accepts_numpy_numbers():
    plain = s.create_scheduler(2, "multi_step_decay", lr=0.5, warmup_epochs=1, milestones=[1, 1, 2], num_epochs=4)
    of_numpy = s.create_scheduler(
        np.int64(2),
        "multi_step_decay",
        lr=np.float64(0.5),
        warmup_epochs=np.int32(1),
        milestones=np.array([1, 1, 2]),
        num_epochs=np.uint8(4),
    )
    assert plain == of_numpy


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: s.constant_lr("a", 1, lr=1.0, **SPAN), "factor must be a number of at least 0, got 'a'"),
        (lambda: s.linear_lr(0, 1, 2, lr=None, **SPAN), "lr must be a number of at least 0, got None"),
        (lambda: s.linear_refined_lr(0, 1, "2", lr=1.0, **SPAN), "total_iters must be a number above 0, got '2'"),
        (lambda: s.polynomial_lr(2, -1, lr=1.0, **SPAN), "power must be a number of at least 0, got -1"),
        (lambda: s.exponential_lr(NAN, lr=1.0, **SPAN), "gamma must be a number of at least 0, got nan"),
        (lambda: s.exponential_refined_lr("a", lr=1.0, **SPAN), "gamma must be a number of at least 0, got 'a'"),
        (lambda: s.step_lr(2, 0.1, lr=-1.0, **SPAN), "lr must be a number of at least 0, got -1.0"),
        (
            lambda: s.step_lr(2, 0.1, lr=1.0, steps_per_epoch=2.5, epochs=1),
            "steps_per_epoch must be a whole number of at least 1, got 2.5",
        ),
        (
            lambda: s.exponential_refined_lr(0.5, lr=1.0, steps_per_epoch=2, epochs=None),
            "epochs must be a whole number of at least 0, got None",
        ),
        (
            lambda: s.multi_step_lr([3, 1], 0.1, lr=1.0, **SPAN),
            "milestones: the epochs must be in rising order, got [3, 1]",
        ),
        (lambda: s.cosine_annealing_lr(2, "0", eta_max=1.0, **SPAN), "eta_min must be a number of at least 0, got '0'"),
        (
            lambda: s.cosine_annealing_warm_restarts_lr(2, 1.5, 0.0, eta_max=1.0, **SPAN),
            "tm must be a whole number of at least 1, got 1.5",
        ),
        (
            lambda: s.cosine_decay_lr(2, 0.0, eta_max=1.0, num_cycles=0, **SPAN),
            "num_cycles must be a whole number of at least 1, got 0",
        ),
        (
            lambda: s.one_cycle_lr(1.0, pct_start=30, **SPAN),
            "pct_start must be a number of at least 0 and at most 1, got 30",
        ),
        (lambda: s.one_cycle_lr(1.0, div_factor=0, **SPAN), "div_factor must be a number above 0, got 0"),
        (
            lambda: s.one_cycle_lr(1.0, anneal_strategy="cosine", **SPAN),
            "anneal_strategy 'cosine' is not known; did you mean 'cos'? (there are: cos, linear)",
        ),
        (lambda: s.cyclic_lr("0", 1.0, **SPAN), "base_lr must be a number of at least 0, got '0'"),
        (
            lambda: s.cyclic_lr(0.0, 1.0, mode=None, **SPAN),
            "mode must be one of the strings 'exp_range', 'triangular', 'triangular2', got None",
        ),
    ],
)
def test_schedules_name_a_wrong_argument(call, sentence):
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        call()
