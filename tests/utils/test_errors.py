"""Tests of the error classes and of the sentences about unknown names."""

import pytest

from mindcv.utils.errors import ConfigError, DataError, UnknownClassesError, UserError, nearest, unknown_name


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("convnext_tini", ["convnext_tiny", "convnext_base"], "; did you mean 'convnext_tiny'?"),
        ("ADAMW", ["adam", "adamw"], "; did you mean 'adamw'?"),
        ("o1", ["O0", "O1"], "; did you mean 'O1'?"),
        ("resnet50", ["adam", "sgd"], ""),
        ("x", [], ""),
        ("", ["x_y"], ""),
        # The first words of a name come before letters that are alike ...
        ("lr_rate", ["drop_rate", "lr", "lr_epoch_stair"], "; did you mean 'lr'?"),
        ("loss_type", ["loss", "loss_scale", "loss_scale_type"], "; did you mean 'loss'?"),
        ("ema_decay_rate", ["decay_rate", "ema", "ema_decay"], "; did you mean 'ema_decay'?"),
        ("Batch", ["batch_size", "bach"], "; did you mean 'bach'?"),
        ("crop", ["drop_rate", "crop_pct"], "; did you mean 'crop_pct'?"),
        ("lrate", ["lr", "drop_rate"], ""),
        # ... and a typing error before both.
        ("lr_epoch_star", ["lr", "lr_epoch_stair"], "; did you mean 'lr_epoch_stair'?"),
        ("lr_min", ["lr", "min_lr"], "; did you mean 'min_lr'?"),
    ],
)
def test_nearest_suggests_a_close_name(name, known, hint):
    assert nearest(name, known) == hint


def test_unknown_name_lists_all_known_names_in_order():
    sentence = unknown_name("opt", "adamx", iter(["sgd", "adamw", "momentum"]))
    assert sentence == "opt 'adamx' is not known; did you mean 'adamw'? (there are: adamw, momentum, sgd)"


def test_unknown_classes_error_names_a_class_of_another_case():
    error = UnknownClassesError("val", ["Bird", "Cat"], ["cat", "dog"], "the checkpoint's")
    assert str(error) == (
        "'val' has 2 class folder(s) that belong to none of the checkpoint's 2 classes: 'Bird', 'Cat'; 'Cat' and 'cat' "
        "differ in upper and lower case: rename the folder (the classes are 'cat', 'dog')"
    )
    assert "case" not in str(UnknownClassesError("val", ["Bird"], ["cat", "dog"]))


def test_errors_are_value_errors():
    error = ConfigError(("lr: too low", "opt: unknown"))
    assert error.problems == ["lr: too low", "opt: unknown"] and str(error) == "lr: too low\nopt: unknown"
    assert isinstance(error, UserError) and isinstance(DataError("x"), ValueError)
