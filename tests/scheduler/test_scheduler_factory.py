"""The whole table of a training: warm-up, schedule, end."""

import logging

import numpy as np
import pytest

from mindcv.scheduler import create_scheduler, lr_at
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger


@pytest.fixture
def lines():
    """What was logged; the package's logger does not propagate to pytest's."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_the_ascend_recipe(lines):
    """lr 0.002, 20 epochs of warm-up from 3.5e-8, 430 of cosine to 3e-7."""
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


def test_min_lr_to_the_end():
    table = create_scheduler(
        2, "cosine_decay", lr=1.0, min_lr=0.1, warmup_epochs=1, warmup_factor=0.5, decay_epochs=1, num_epochs=4
    )
    np.testing.assert_allclose(table, [0.5, 0.75, 1.0, 0.55, 0.1, 0.1, 0.1, 0.1])


def test_stairs():
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
def test_by_epoch(name, options, expected):
    table = create_scheduler(3, name, lr=1.0, warmup_epochs=0, num_epochs=4, **options)
    np.testing.assert_allclose(table, np.repeat(expected, 3))


def test_by_step():
    table = create_scheduler(2, "exponential_decay", lr=1.0, warmup_epochs=0, num_epochs=2, decay_rate=0.25)
    np.testing.assert_allclose(table, [1, 0.5, 0.25, 0.125])
    table = create_scheduler(2, "polynomial_decay", lr=1.0, warmup_epochs=0, num_epochs=2, decay_rate=1.0)
    np.testing.assert_allclose(table, [1, 0.75, 0.5, 0.25])


def test_milestones_count_from_the_end_of_the_warmup():
    table = create_scheduler(1, "multi_step_decay", lr=1.0, warmup_epochs=2, num_epochs=5, milestones=[1])
    np.testing.assert_allclose(table, [0, 0.5, 1.0, 0.9, 0.9])


def test_one_cycle():
    table = create_scheduler(5, "one_cycle", lr=1.0, min_lr=0.001, warmup_epochs=0, num_epochs=2)
    assert (table[0], table[2], table[9]) == pytest.approx((0.04, 1.0, 0.001))


def test_cyclic():
    table = create_scheduler(4, "cyclic", lr=1.0, min_lr=0.2, warmup_epochs=0, num_epochs=2, num_cycles=2)
    np.testing.assert_allclose(table, [0.2, 0.6, 1.0, 0.6] * 2)


def test_too_long_a_plan_warns_once_and_is_cut(lines):
    table = create_scheduler(2, "cosine_decay", lr=1.0, min_lr=0.0, warmup_epochs=1, decay_epochs=4, num_epochs=3)
    full = create_scheduler(2, "cosine_decay", lr=1.0, min_lr=0.0, warmup_epochs=1, decay_epochs=4, num_epochs=5)
    assert table == full[:6]
    assert lines == ["warm-up and decay take 5 epochs, the training has 3: the schedule is cut there"]
    assert create_scheduler(2, lr=1.0, warmup_epochs=4, num_epochs=2) == [0.0, 0.125, 0.25, 0.375]


def test_a_first_epoch_at_rate_0_is_said(lines):
    create_scheduler(2, "constant", warmup_epochs=1, num_epochs=3, lr_epoch_stair=True)
    assert len(lines) == 1 and "learning rate 0" in lines[0]


def test_lr_at():
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
        ({"scheduler": "one_cycle"}, "warmup_epochs 0"),
        ({"scheduler": "cyclic", "warmup_epochs": 0, "lr_epoch_stair": True}, "lr_epoch_stair False"),
        ({"scheduler": "one_cycle", "warmup_epochs": 0, "min_lr": 0.0}, "min_lr"),
        ({"scheduler": "cyclic", "warmup_epochs": 0, "num_cycles": 1000}, "too few"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(UserError, match=message):
        create_scheduler(**{"steps_per_epoch": 2, **wrong})
