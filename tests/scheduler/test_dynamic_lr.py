"""Compares the schedules with tables written by hand and with the formulas of their papers."""

import math

import numpy as np
import pytest

from mindcv import scheduler as s

SPAN = {"steps_per_epoch": 2, "epochs": 4}


def close(actual, expected):
    assert all(type(rate) is float for rate in actual)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)


def held(per_epoch, steps=2):
    return np.repeat(per_epoch, steps)


def test_constant_lr_multiplies_the_first_epochs_by_the_factor():
    close(s.constant_lr(0.5, 2, lr=0.2, **SPAN), held([0.1, 0.1, 0.2, 0.2]))


def test_linear_lr_interpolates_between_the_factors():
    close(s.linear_lr(0.0, 1.0, 2, lr=0.2, **SPAN), held([0.0, 0.1, 0.2, 0.2]))
    close(s.linear_refined_lr(0.0, 1.0, 2, lr=0.2, **SPAN), [0.0, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.2])
    close(s.linear_lr(1.0, 0.5, 4, lr=0.8, **SPAN), held([0.8, 0.7, 0.6, 0.5]))


def test_polynomial_lr_falls_to_0_with_the_power():
    close(s.polynomial_lr(2, 2.0, lr=0.4, **SPAN), held([0.4, 0.1, 0.0, 0.0]))
    close(s.polynomial_refined_lr(2, 2.0, lr=1.6, **SPAN), [1.6, 0.9, 0.4, 0.1, 0, 0, 0, 0])


def test_exponential_lr_multiplies_by_gamma_per_epoch():
    close(s.exponential_lr(0.25, lr=1.0, **SPAN), held([1, 1 / 4, 1 / 16, 1 / 64]))
    close(s.exponential_refined_lr(0.25, lr=1.0, **SPAN), [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128])


def test_step_lr_and_multi_step_lr_multiply_by_gamma_at_their_epochs():
    close(s.step_lr(2, 0.1, lr=1.0, steps_per_epoch=2, epochs=5), held([1, 1, 0.1, 0.1, 0.01]))
    close(s.multi_step_lr([1, 3], 0.1, lr=1.0, **SPAN), held([1, 0.1, 0.1, 0.01]))
    close(s.multi_step_lr([1, 1, 3], 0.1, lr=1.0, **SPAN), held([1, 0.01, 0.01, 0.001]))
    close(s.multi_step_lr([], 0.1, lr=1.0, **SPAN), held([1, 1, 1, 1]))


def test_cosine_annealing_lr_rises_again_after_t_max():
    actual = s.cosine_annealing_lr(2, 0.2, eta_max=1.0, steps_per_epoch=2, epochs=5)
    close(actual, held([1.0, 0.6, 0.2, 0.6, 1.0]))


def test_cosine_annealing_warm_restarts_lr_restarts_with_longer_cycles():
    actual = s.cosine_annealing_warm_restarts_lr(2, 2, 0.0, eta_max=1.0, steps_per_epoch=1, epochs=8)
    quarter = math.cos(math.pi / 8) ** 2, 0.5 + math.sqrt(0.5) / 2, 0.5 - math.sqrt(0.5) / 2
    close(actual, [1.0, 0.5, 1.0, quarter[1], 0.5, quarter[2], 1.0, 0.5 * (1 + math.cos(math.pi / 8))])
    by_step = s.cosine_annealing_warm_restarts_lr(1, 2, 0.2, eta_max=1.0, steps_per_epoch=2, epochs=3)
    close(by_step, [1.0, 0.6, 1.0, 0.2 + 0.8 * quarter[1], 0.6, 0.2 + 0.8 * quarter[2]])
    with pytest.raises(ValueError, match="tm must be a whole number of at least 1"):
        s.cosine_annealing_warm_restarts_lr(2, 0, 0.1, eta_max=1.0, **SPAN)


def test_cosine_decay_lr_stays_at_eta_min_after_decay_epochs():
    close(s.cosine_decay_lr(2, 0.2, eta_max=1.0, **SPAN), held([1.0, 0.6, 0.2, 0.2]))
    time = np.arange(8) / 2
    expected = np.where(time < 3, 0.2 + 0.4 * (1 + np.cos(np.pi * time / 3)), 0.2)
    close(s.cosine_decay_refined_lr(3, 0.2, eta_max=1.0, **SPAN), expected)


def test_cosine_decay_lr_starts_each_cycle_lower_by_cycle_decay():
    actual = s.cosine_decay_lr(2, 0.1, eta_max=1.0, steps_per_epoch=2, epochs=7, num_cycles=3, cycle_decay=0.5)
    close(actual, held([1.0, 0.55, 0.5, 0.3, 0.25, 0.175, 0.1]))
    refined = s.cosine_decay_refined_lr(2, 0.1, eta_max=1.0, steps_per_epoch=2, epochs=5, num_cycles=2, cycle_decay=0.5)
    np.testing.assert_allclose(refined[::2], [1.0, 0.55, 0.5, 0.3, 0.1])
    assert refined[1] == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)))


def test_one_cycle_lr_rises_and_falls_as_its_strategy_and_phases_say():
    # Of 10 steps, the highest rate is at step 0.3 * 10 - 1 = 2 and the last rate at step 9.
    actual = s.one_cycle_lr(1.0, div_factor=10.0, final_div_factor=100.0, steps_per_epoch=5, epochs=2)
    down = 0.001 + 0.999 * (1 + np.cos(np.pi * np.arange(1, 8) / 7)) / 2
    close(actual, [0.1, 0.55, 1.0, *down])
    linear = s.one_cycle_lr(
        1.0, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0, steps_per_epoch=5, epochs=2
    )
    close(linear, np.interp(range(10), [0, 2, 9], [0.1, 1.0, 0.001]))
    three = s.one_cycle_lr(
        1.0, 0.3, "linear", div_factor=10.0, final_div_factor=100.0, three_phase=True, steps_per_epoch=5, epochs=2
    )
    close(three, np.interp(range(10), [0, 2, 4, 9], [0.1, 1.0, 0.1, 0.001]))
    assert len(s.one_cycle_lr(1.0, 0.0, steps_per_epoch=1, epochs=1)) == 1
    with pytest.raises(ValueError, match="anneal_strategy"):
        s.one_cycle_lr(1.0, anneal_strategy="poly", **SPAN)


def test_cyclic_lr_scales_its_triangles_by_mode_or_scale_fn():
    close(s.cyclic_lr(0.1, 0.5, 2, **SPAN), [0.1, 0.3, 0.5, 0.3, 0.1, 0.3, 0.5, 0.3])
    close(s.cyclic_lr(0.1, 0.5, 1, 3, **SPAN), [0.1, 0.5, 0.1 + 0.8 / 3, 0.1 + 0.4 / 3] * 2)
    close(s.cyclic_lr(0.1, 0.5, 2, mode="triangular2", **SPAN), [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2])
    heights = np.array([0, 0.2, 0.4, 0.2, 0, 0.2, 0.4, 0.2])
    close(s.cyclic_lr(0.1, 0.5, 2, mode="exp_range", gamma=0.9, **SPAN), 0.1 + heights * 0.9 ** np.arange(8))
    thirds = s.cyclic_lr(0.1, 0.5, 2, scale_fn=lambda cycle: 1 / cycle**2, **SPAN)
    close(thirds, [0.1, 0.3, 0.5, 0.3, 0.1, 0.15, 0.2, 0.15])
    for wrong in ({"mode": "square"}, {"scale_fn": abs, "scale_mode": "epoch"}):
        with pytest.raises(ValueError):
            s.cyclic_lr(0.1, 0.5, **wrong, **SPAN)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: s.linear_lr(0.0, 1.0, 0, lr=1.0, **SPAN), "total_iters"),
        (lambda: s.polynomial_refined_lr(0, 1.0, lr=1.0, **SPAN), "total_iters"),
        (lambda: s.step_lr(0, 0.1, lr=1.0, **SPAN), "step_size"),
        (lambda: s.cosine_annealing_lr(0, 0.1, eta_max=1.0, **SPAN), "t_max"),
        (lambda: s.cosine_annealing_warm_restarts_lr(0, 2, 0.1, eta_max=1.0, **SPAN), "te"),
        (lambda: s.cosine_decay_refined_lr(0, 0.1, eta_max=1.0, **SPAN), "decay_epochs"),
        (lambda: s.cyclic_lr(0.1, 1.0, 0, **SPAN), "step_size_up"),
        (lambda: s.cyclic_lr(0.1, 1.0, 2, 0, **SPAN), "step_size_down"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schedules_refuse_lengths_of_0(call, name):
    with pytest.raises(ValueError, match=f"{name} must be a number above 0"):
        call()
