"""Checks the whole table of learning rates of a run: the warm-up, the schedule and the end."""

import logging

import numpy as np
import pytest

from mindcv.scheduler import create_scheduler, lr_at
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger


@pytest.fixture
def lines():
    """Return the logged messages. The logger of the package does not propagate to the logger of pytest."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_create_scheduler_equals_the_ascend_recipe(lines):
    """20 epochs of warm-up go from 3.5e-8 to 0.002, then a cosine of 430 epochs goes to 3e-7."""
    table = create_scheduler(
        10,
        "cosine_decay",
        lr=0.002,
        min_lr=3e-7,
        warmup_epochs=20,
        warmup_factor=1.75e-5,
        decay_epochs=430,
        num_epochs=450,
    )
    steps = np.arange(4500)
    rise = 0.002 * (1.75e-5 + (1 - 1.75e-5) * steps / 200)
    decay = 3e-7 + (0.002 - 3e-7) / 2 * (1 + np.cos(np.pi * (steps - 200) / 4300))
    np.testing.assert_allclose(table, np.where(steps < 200, rise, decay), rtol=1e-9)
    assert table[0] == pytest.approx(3.5e-8)
    assert table[200] == pytest.approx(0.002)
    assert not lines


def test_create_scheduler_equals_the_schedule_of_the_papers():
    """A warm-up of 40 epochs from 0, then a half cosine to min_lr, step by step as in the code of ConvNeXt V2."""
    steps, epochs, warmup, lr, min_lr = 7, 300, 40, 8e-4, 1e-6
    table = create_scheduler(
        steps,
        "cosine_decay",
        lr=lr,
        min_lr=min_lr,
        warmup_epochs=warmup,
        decay_epochs=epochs - warmup,
        num_epochs=epochs,
    )
    expected = []
    for step in range(steps * epochs):
        epoch = step / steps
        if epoch < warmup:
            expected.append(lr * epoch / warmup)
        else:
            expected.append(min_lr + (lr - min_lr) * 0.5 * (1 + np.cos(np.pi * (epoch - warmup) / (epochs - warmup))))
    np.testing.assert_allclose(table, expected, rtol=1e-12)
    # The code of ConvNeXt computes the same rates from the number of the step after the warm-up.
    i = np.arange(steps * (epochs - warmup))
    decay = min_lr + 0.5 * (lr - min_lr) * (1 + np.cos(np.pi * i / len(i)))
    np.testing.assert_allclose(table[steps * warmup :], decay, rtol=1e-12)


@pytest.mark.parametrize("stairs", [False, True])
def test_create_scheduler_starts_the_warmup_at_warmup_lr(stairs):
    """The values of MindSpore's ConvNeXt page: 20 epochs from 7e-8 to 5e-4, then a cosine of 280 epochs to 6e-6."""
    options = {"lr": 5e-4, "min_lr": 6e-6, "warmup_epochs": 20, "decay_epochs": 280, "num_epochs": 300}
    table = create_scheduler(4, "cosine_decay", warmup_lr=7e-8, lr_epoch_stair=stairs, **options)
    epoch = np.arange(1200) // 4 if stairs else np.arange(1200) / 4
    rise = 7e-8 + (5e-4 - 7e-8) * epoch / 20
    decay = 6e-6 + (5e-4 - 6e-6) * (1 + np.cos(np.pi * (epoch - 20) / 280)) / 2
    np.testing.assert_allclose(table, np.where(epoch < 20, rise, decay), rtol=1e-12)
    factor = create_scheduler(4, "cosine_decay", warmup_factor=7e-8 / 5e-4, lr_epoch_stair=stairs, **options)
    np.testing.assert_allclose(table, factor, rtol=1e-12)
    # In MindSpore's trainer the cosine falls to 0, and lower rates are raised to the minimum.
    clipped = np.maximum(np.where(epoch < 20, rise, 5e-4 * (1 + np.cos(np.pi * (epoch - 20) / 280)) / 2), 6e-6)
    assert np.abs(table - clipped).max() <= 6e-6


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [1, 1, 1, 1]),
        ("cosine_decay", {"decay_epochs": 2, "min_lr": 0.0}, [1, 0.5, 0, 0]),
        ("step_decay", {"decay_epochs": 2, "decay_rate": 0.5}, [1, 1, 0.5, 0.5]),
        ("multi_step_decay", {"milestones": [3], "decay_rate": 0.5}, [1, 1, 1, 0.5]),
        ("exponential_decay", {"decay_rate": 0.5}, [1, 0.5, 0.25, 0.125]),
        ("polynomial_decay", {"decay_rate": 1.0}, [1, 0.75, 0.5, 0.25]),
    ],
)
@pytest.mark.parametrize("stairs", [False, True])
def test_create_scheduler_starts_each_schedule_after_the_warmup(name, options, expected, stairs):
    """The first rate of each epoch is the same with and without stairs."""
    table = create_scheduler(
        3, name, lr=1.0, warmup_epochs=2, warmup_lr=0.5, num_epochs=6, lr_epoch_stair=stairs, **options
    )
    np.testing.assert_allclose(table[::3], [0.5, 0.75, *expected], atol=1e-15)
    if stairs:
        np.testing.assert_allclose(table, np.repeat([0.5, 0.75, *expected], 3), atol=1e-15)
    else:
        np.testing.assert_allclose(table[:6], 0.5 + 0.5 * np.arange(6) / 6)


def test_create_scheduler_stays_at_min_lr_after_the_decay():
    table = create_scheduler(
        2, "cosine_decay", lr=1.0, min_lr=0.1, warmup_epochs=1, warmup_factor=0.5, decay_epochs=1, num_epochs=4
    )
    np.testing.assert_allclose(table, [0.5, 0.75, 1.0, 0.55, 0.1, 0.1, 0.1, 0.1])


def test_create_scheduler_changes_the_rate_once_per_epoch_when_lr_epoch_stair():
    table = create_scheduler(
        2,
        "cosine_decay",
        lr=1.0,
        min_lr=0.2,
        warmup_epochs=2,
        warmup_factor=0.5,
        decay_epochs=2,
        num_epochs=5,
        lr_epoch_stair=True,
    )
    np.testing.assert_allclose(table, np.repeat([0.5, 0.75, 1.0, 0.6, 0.2], 2))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [1, 1, 1, 1]),
        ("step_decay", {"decay_epochs": 2, "decay_rate": 0.1}, [1, 1, 0.1, 0.1]),
        ("multi_step_decay", {"milestones": [1, 3], "decay_rate": 0.1}, [1, 0.1, 0.1, 0.01]),
        ("multi_step_decay", {}, [1, 1, 1, 1]),
        ("exponential_decay", {"decay_rate": 0.5, "lr_epoch_stair": True}, [1, 0.5, 0.25, 0.125]),
        ("polynomial_decay", {"decay_rate": 1.0, "lr_epoch_stair": True}, [1, 0.75, 0.5, 0.25]),
        ("STEP_DECAY", {"decay_epochs": 3, "decay_rate": 0.1}, [1, 1, 1, 0.1]),
    ],
)
def test_create_scheduler_table_equals_one_rate_per_epoch(name, options, expected):
    table = create_scheduler(3, name, lr=1.0, warmup_epochs=0, num_epochs=4, **options)
    np.testing.assert_allclose(table, np.repeat(expected, 3))


def test_create_scheduler_changes_the_rate_at_every_step():
    table = create_scheduler(2, "exponential_decay", lr=1.0, warmup_epochs=0, num_epochs=2, decay_rate=0.25)
    np.testing.assert_allclose(table, [1, 0.5, 0.25, 0.125])
    table = create_scheduler(2, "polynomial_decay", lr=1.0, warmup_epochs=0, num_epochs=2, decay_rate=1.0)
    np.testing.assert_allclose(table, [1, 0.75, 0.5, 0.25])


def test_create_scheduler_counts_milestones_from_the_end_of_the_warmup():
    table = create_scheduler(1, "multi_step_decay", lr=1.0, warmup_epochs=2, num_epochs=5, milestones=[1])
    np.testing.assert_allclose(table, [0, 0.5, 1.0, 0.9, 0.9])


def test_create_scheduler_one_cycle_peaks_at_lr_and_ends_at_min_lr():
    table = create_scheduler(5, "one_cycle", lr=1.0, min_lr=0.001, warmup_epochs=0, num_epochs=2)
    assert (table[0], table[2], table[9]) == pytest.approx((0.04, 1.0, 0.001))


def test_create_scheduler_cyclic_repeats_num_cycles_triangles():
    table = create_scheduler(4, "cyclic", lr=1.0, min_lr=0.2, warmup_epochs=0, num_epochs=2, num_cycles=2)
    np.testing.assert_allclose(table, [0.2, 0.6, 1.0, 0.6] * 2)


def test_create_scheduler_warns_once_and_cuts_a_plan_that_is_too_long(lines):
    table = create_scheduler(2, "cosine_decay", lr=1.0, min_lr=0.0, warmup_epochs=1, decay_epochs=4, num_epochs=3)
    full = create_scheduler(2, "cosine_decay", lr=1.0, min_lr=0.0, warmup_epochs=1, decay_epochs=4, num_epochs=5)
    assert table == full[:6]
    assert lines == ["warm-up and decay take 5 epochs, but training ends after 3: the schedule is cut there"]
    assert create_scheduler(2, lr=1.0, warmup_epochs=4, num_epochs=2) == [0.0, 0.125, 0.25, 0.375]


def test_create_scheduler_warns_when_the_first_epoch_has_rate_0(lines):
    create_scheduler(2, "constant", warmup_epochs=1, num_epochs=3, lr_epoch_stair=True)
    assert len(lines) == 1 and "learning rate 0" in lines[0]


def test_lr_at_keeps_the_last_rate_after_the_end():
    assert [lr_at([0.1, 0.2, 0.3], step) for step in (0, 2, 3, 99)] == [0.1, 0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scheduler": "cosine_decoy"}, "did you mean 'cosine_decay'"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"num_epochs": 0}, "num_epochs"),
        ({"decay_epochs": 0}, "decay_epochs"),
        ({"num_cycles": 0}, "num_cycles"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"warmup_lr": 0.1, "warmup_factor": 0.1}, "warmup_lr: give the start .* not both, got 0.1 and 0.1"),
        ({"warmup_lr": -0.1}, "warmup_lr must be a number of at least 0"),
        ({"warmup_factor": -0.1}, "warmup_factor"),
        ({"lr": float("nan")}, "lr must"),
        ({"min_lr": -1e-6}, "min_lr"),
        ({"decay_rate": float("inf")}, "decay_rate"),
        ({"cycle_decay": -1.0}, "cycle_decay"),
        ({"scheduler": "one_cycle"}, "warmup_epochs: 0"),
        ({"scheduler": "cyclic", "warmup_epochs": 0, "lr_epoch_stair": True}, "lr_epoch_stair: False"),
        ({"scheduler": "one_cycle", "warmup_epochs": 0, "min_lr": 0.0}, "min_lr"),
        ({"scheduler": "cyclic", "warmup_epochs": 0, "num_cycles": 1000}, "too few"),
    ],
)
def test_create_scheduler_refuses_wrong_values(wrong, message):
    with pytest.raises(UserError, match=message):
        create_scheduler(**{"steps_per_epoch": 2, **wrong})
