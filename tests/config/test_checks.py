"""Tests of the rules between options, which the configuration and the factories must apply alike."""

from types import SimpleNamespace

import mindspore as ms
import pytest

from mindcv.config.checks import cross_checks
from mindcv.optim.optim_factory import OPTIMIZER_NAMES, create_optimizer
from mindcv.scheduler.scheduler_factory import SCHEDULER_NAMES, create_scheduler
from mindcv.utils.errors import UserError


def refuses(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except UserError:
        return True
    return False


@pytest.mark.parametrize("opt", OPTIMIZER_NAMES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_cross_checks_refuse_nesterov_when_create_optimizer_does(opt, momentum):
    config = SimpleNamespace(opt=opt, use_nesterov=True, momentum=momentum)
    problems = cross_checks(config, ("opt", "use_nesterov", "momentum"))
    weights = [ms.Parameter(ms.Tensor([1.0]), name="w")]
    assert bool(problems) == refuses(create_optimizer, weights, opt, nesterov=True, momentum=momentum)
    assert all(problem.startswith("use_nesterov: ") for problem in problems)


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
@pytest.mark.parametrize("changed", [{}, {"warmup_epochs": 1}, {"lr_epoch_stair": True}, {"min_lr": 0.0}])
def test_cross_checks_refuse_a_schedule_when_create_scheduler_does(scheduler, changed):
    options = {"warmup_epochs": 0, "lr_epoch_stair": False, "min_lr": 1e-3, **changed}
    names = ("scheduler", *options)
    problems = cross_checks(SimpleNamespace(scheduler=scheduler, **options), names)
    assert bool(problems) == refuses(create_scheduler, 4, scheduler, lr=0.1, num_epochs=2, **options)
    assert len(problems) <= 1
