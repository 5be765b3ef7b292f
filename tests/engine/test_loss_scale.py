"""Loss scales are compared with their rule in plain Python."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.engine.loss_scale import DynamicLossScale, FixedLossScale, create_loss_scale
from mindcv.utils.errors import UserError


def by_hand(scale, window, events):
    good, scales = 0, []
    for is_finite in events:
        if is_finite:
            good += 1
            if good == window:
                scale, good = 2 * scale, 0
        else:
            scale, good = max(scale / 2, 1.0), 0
        scales.append(scale)
    return scales


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("initial", [1.0, 8.0])
def test_dynamic_loss_scale_halves_after_an_overflow_and_doubles_after_a_window(initial, window):
    events = [True, True, False, True, False, False, False, False, True, True, True, True, True, True, True]
    scale = DynamicLossScale(initial, window)
    found = []
    for is_finite in events:
        scale.adjust(Tensor(is_finite))
        found.append(float(scale.value.asnumpy()))
    assert found == by_hand(initial, window, events)


@pytest.mark.parametrize("scale", [FixedLossScale(1024.0), DynamicLossScale(1024.0)])
def test_loss_scale_unscales_a_gradient_to_float32(scale):
    assert scale(Tensor(3.0, ms.float32)).asnumpy() == 3072
    gradient = scale.unscale(Tensor([1024.0, 1e-4], ms.float16))
    assert gradient.dtype == ms.float32
    np.testing.assert_allclose(gradient.asnumpy(), np.float32(np.float16([1024, 1e-4])) / 1024, rtol=1e-7)


@pytest.mark.parametrize(
    ("kind", "value", "is_float16", "is_dynamic", "expected"),
    [
        ("fixed", 1.0, False, False, 1),
        ("fixed", 512.0, True, False, 512),
        ("auto", 512.0, False, False, 1),
        ("auto", 1.0, True, True, 65536),
        ("auto", 128.0, True, True, 128),
        ("dynamic", 1.0, False, True, 65536),
        ("dynamic", 256.0, True, True, 256),
    ],
)
def test_create_loss_scale_chooses_kind_and_factor_by_its_options(kind, value, is_float16, is_dynamic, expected):
    scale = create_loss_scale(kind, value, is_float16)
    assert scale.is_dynamic == is_dynamic and float(scale(Tensor(1.0))) == expected


def test_loss_scale_has_documented_defaults():
    assert FixedLossScale().value == 1 and FixedLossScale().is_one and not FixedLossScale(2.0).is_one
    scale = DynamicLossScale()
    assert float(scale.value.asnumpy()) == 65536 and scale.window == 2000
    assert int(scale.good_steps.asnumpy()) == 0


def test_dynamic_loss_scale_has_parameters_that_are_not_trainable():
    scale = DynamicLossScale()
    assert not scale.trainable_params()
    assert {parameter.name for parameter in scale.get_parameters()} == {"loss_scale", "loss_scale_good_steps"}


def test_create_loss_scale_refuses_wrong_options():
    with pytest.raises(UserError, match="loss_scale must be a number above 0, got 0"):
        create_loss_scale("fixed", 0.0, False)
    with pytest.raises(UserError, match=r"loss_scale_type 'dynamc' is not known; did you mean 'dynamic'"):
        create_loss_scale("dynamc", 1.0, False)
