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


@pytest.mark.parametrize("opt", OPTIMIZER_NAMES)
@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99), (0.9, 0.99, 0.9)])
def test_cross_checks_refuse_betas_when_create_optimizer_does(opt, betas):
    problems = cross_checks(SimpleNamespace(opt=opt, betas=betas), ("opt", "betas"))
    weights = [ms.Parameter(ms.Tensor([1.0]), name="w")]
    assert bool(problems) == refuses(create_optimizer, weights, opt, betas=betas)


@pytest.mark.parametrize("warmup_lr", [None, 0.01])
@pytest.mark.parametrize("warmup_factor", [0.0, 0.1])
@pytest.mark.parametrize("milestones", [[], [1, 2], [2, 1]])
def test_cross_checks_refuse_warm_up_and_milestones_when_create_scheduler_does(warmup_lr, warmup_factor, milestones):
    options = {"warmup_lr": warmup_lr, "warmup_factor": warmup_factor}
    config = SimpleNamespace(multi_step_decay_milestones=milestones, **options)
    problems = cross_checks(config, (*options, "multi_step_decay_milestones"))
    assert bool(problems) == refuses(create_scheduler, 4, lr=0.1, num_epochs=5, milestones=milestones, **options)


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
@pytest.mark.parametrize("changed", [{}, {"warmup_epochs": 1}, {"lr_epoch_stair": True}, {"min_lr": 0.0}])
def test_cross_checks_refuse_a_schedule_when_create_scheduler_does(scheduler, changed):
    options = {"warmup_epochs": 0, "lr_epoch_stair": False, "min_lr": 1e-3, **changed}
    names = ("scheduler", *options)
    problems = cross_checks(SimpleNamespace(scheduler=scheduler, **options), names)
    assert bool(problems) == refuses(create_scheduler, 4, scheduler, lr=0.1, num_epochs=2, **options)
    assert len(problems) <= 1
