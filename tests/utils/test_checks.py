"""Tests of the checks of arguments: accepted values, refused values, and the error messages."""

import re
from pathlib import Path

import numpy as np
import pytest

from mindcv.utils import checks
from mindcv.utils.errors import UserError

NAN = float("nan")


def refused(sentence):
    return pytest.raises(UserError, match=f"^{re.escape(sentence)}$")


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_check_int_returns_an_int(value):
    checked = checks.check_int("n", value, 3, 3)
    assert checked == 3 and type(checked) is int


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (2.5, "2.5"),
        (2.0, "2.0"),
        ("2", "'2'"),
        (None, "None"),
        (True, "True"),
        (np.bool_(True), "True"),
        ([2], "[2]"),
        (-1, "-1"),
        (10, "10"),
        (np.zeros(3), "a value of type ndarray"),
    ],
)
def test_check_int_refuses_and_shows_another_value(value, found):
    with refused(f"n must be a whole number of at least 0 and at most 9, got {found}"):
        checks.check_int("n", value, 0, 9)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), np.int8(0)])
def test_check_number_returns_the_value_itself(value):
    assert checks.check_number("x", value, low=0, below=1) is value


@pytest.mark.parametrize("value", [-0.1, 1, NAN, float("inf"), "0.5", None, False, 1j, [0.5], np.array([0.5])])
def test_check_number_refuses_another_value(value):
    with refused(f"x must be a number of at least 0 and below 1, got {checks.shown(value)}"):
        checks.check_number("x", value, low=0, below=1)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, "a number"),
        ({"above": 0}, "a number above 0"),
        ({"above": 0, "high": 1}, "a number above 0 and at most 1"),
        ({"low": 0.25, "high": 0.75}, "a number of at least 0.25 and at most 0.75"),
    ],
)
def test_check_number_names_its_bounds_in_the_message(bounds, words):
    with refused(f"x must be {words}, got 'a'"):
        checks.check_number("x", "a", **bounds)


@pytest.mark.parametrize("values", [[0.9, 0.99], (0.9, np.float32(0.99)), np.array([0.9, 0.99])])
def test_check_numbers_returns_the_values(values):
    assert checks.check_numbers("betas", values, 2, above=0, below=1) is values


@pytest.mark.parametrize("values", [0.9, (0.9,), (0.9, 1.0), (0.9, NAN), (0.9, "0.99"), "ab", None, {0.5: 1, 0.6: 2}])
def test_check_numbers_refuses_other_values(values):
    with refused(f"betas must be a list of 2 numbers, each above 0 and below 1, got {values!r}"):
        checks.check_numbers("betas", values, 2, above=0, below=1)


def test_check_ints_returns_a_tuple_of_ints():
    for values in ([1, 2], (1, 2), range(1, 3), np.array([1, 2])):
        checked = checks.check_ints("depths", values, 2, 1)
        assert checked == (1, 2) and all(type(value) is int for value in checked)


@pytest.mark.parametrize("values", [2, (2,), (2, 0), (2, 1.5), (2, True), "12", None, np.ones((2, 2), int)])
def test_check_ints_refuses_other_values(values):
    with refused(f"depths must be a list of 2 whole numbers, each of at least 1, got {checks.shown(values)}"):
        checks.check_ints("depths", values, 2, 1)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), 0, 1])
def test_check_flags_accepts_true_and_false(value):
    checks.check_flags(shuffle=value)


@pytest.mark.parametrize("value", ["False", None, 2, 1.0, []])
def test_check_flags_refuses_another_value(value):
    with refused(f"shuffle must be True or False, got {value!r}"):
        checks.check_flags(shuffle=value)


def test_check_name_returns_the_known_name():
    assert checks.check_name("loss", "ce", ("CE", "BCE"), ignore_case=True) == "CE"
    assert checks.check_name("dataset", "", ("", "digits")) == ""


def test_check_name_refuses_another_value():
    with refused("reduction 'Mean' is not known; did you mean 'mean'? (there are: mean, sum)"):
        checks.check_name("reduction", "Mean", ("sum", "mean", ""))
    for value in (None, ["mean"], 3):
        with refused(f"reduction must be one of the strings 'mean', 'sum', got {value!r}"):
            checks.check_name("reduction", value, ("sum", "mean", ""))


def test_check_text_path_and_kind_refuse_another_type():
    assert checks.check_text("split", "val") == "val" and checks.check_path("root", Path("a")) == Path("a")
    assert checks.check_kind("size", 3, int, "an integer") == 3
    with refused("split must be a string, got None"):
        checks.check_text("split", None)
    with refused("root must be a path (a string or a pathlib.Path), got 3"):
        checks.check_path("root", 3)
    with refused("network must be a network, got a value of type ndarray"):
        checks.check_kind("network", np.zeros(1), dict, "a network")


def test_shown_returns_short_values_and_the_type_of_long_ones():
    assert checks.shown([1, "a"]) == "[1, 'a']" and checks.shown(np.float32(0.5)) == repr(np.float32(0.5))
    assert checks.shown("x" * 200) == "a value of type str" and checks.shown(list(range(100))) == "a value of type list"
    assert checks.shown(refused) == "a value of type function"
