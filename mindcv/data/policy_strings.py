"""Parses policy strings: a name and fields, such as 'randaug-m9-n2-mstd0.5' or 'augmix-m3-d-1'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Union

from mindcv.utils.checks import check_name, check_text
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["Fields", "parse_policy", "policy_name"]

# Field -> (attribute that it sets, type of its number).
Fields = Mapping[str, tuple[str, type]]

_SEPARATOR = r"-(?!\d)"  # the minus sign of a number is not a separator


def policy_name(text: str) -> str:
    """Return the name in a policy string, which is the part before the fields."""
    return re.split(_SEPARATOR, check_text("auto_augment", text), maxsplit=1)[0]


def parse_policy(text: str, names: Iterable[str], fields: Fields) -> dict[str, Union[int, float]]:
    """Return the numbers in a policy string, by attribute.

    Args:
        text: name and fields, separated by dashes.
        names: allowed names.
        fields: allowed fields. Each may occur once.

    Raises:
        UserError: the name or a field is unknown, a field occurs twice, or no number of the right type follows it.
    """
    name, *given = re.split(_SEPARATOR, check_text("auto_augment", text))
    check_name("auto_augment policy", name, names)
    values = {}
    for field in given:
        key, number = re.fullmatch(r"([a-z]*)(.*)", field, re.DOTALL).groups()
        if not fields:
            raise UserError(f"auto_augment '{text}': '{name}' takes no fields, got '{field}'")
        if key not in fields:
            raise UserError(f"auto_augment '{text}': {unknown_name('field', key or field, fields)}")
        attribute, kind = fields[key]
        if not re.fullmatch(r"-?\d+" if kind is int else r"-?(\d+(\.\d*)?|\.\d+)", number, re.ASCII):
            wanted = "a whole number" if kind is int else "a number"
            raise UserError(f"auto_augment '{text}': field '{key}' must be followed by {wanted}, got '{number}'")
        if attribute in values:
            raise UserError(f"auto_augment '{text}': field '{key}' occurs twice")
        values[attribute] = kind(number)
    return values
