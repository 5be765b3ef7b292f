"""What an exported file says about itself: the model, its classes and the preprocessing of its images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable, Union

from mindcv.utils.errors import UserError

__all__ = ["EXPORT_FORMATS", "FEATURES", "FEATURE_MAPS", "LOGITS", "PROBABILITIES", "ExportMetadata"]

EXPORT_FORMATS = ("mindir", "onnx", "air")

# Kinds of output.
LOGITS = "logits"  # [N, classes]
PROBABILITIES = "probabilities"  # [N, classes]
FEATURES = "features"  # pooled and normalised [N, channels], or the normalised map [N, channels, h, w]
FEATURE_MAPS = "feature_maps"  # one map [N, channels, h, w] for each chosen stage


@dataclass(frozen=True)
class ExportMetadata:
    """The metadata of an exported file.

    Args:
        model: name of the model, or '' if it is unknown.
        class_names: names of the classes in the order of the outputs, or () if they are unknown.
        preprocessing: `image_resize`, `crop_pct`, `interpolation`, `mean`, `std` and `in_channels`, which
            `mindcv.create_transforms` takes. {} if they are unknown.
        output: kind of the output, one of the constants of this module.
        takes_pixels: whether the file prepares the images itself. It then takes uint8 [N, H, W, 3] of any size, and
            otherwise prepared images, float32 [N, in_channels, H, W].
        dynamic_batch: whether the file takes any number of images. Otherwise it takes one.
        half: whether the file computes in float16.
    """

    model: str = ""
    class_names: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    output: str = LOGITS
    takes_pixels: bool = False
    dynamic_batch: bool = True
    half: bool = False

    def as_texts(self) -> dict[str, str]:
        """Return each field as a text: a string as it is, and anything else as JSON."""
        values = asdict(self)
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in values.items()
        }

    def as_json(self) -> str:
        """Return all fields as one JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_texts(texts: Mapping[str, str], path: str) -> ExportMetadata:
        """Return the metadata from the texts of `as_texts`. Further texts are ignored.

        Raises:
            UserError: the file `path` was not written by this library, or its metadata is damaged.
        """
        kinds = {each.name: each.type for each in fields(ExportMetadata)}
        try:
            return _from_values(
                {
                    name: text if kinds[name] == "str" else json.loads(text)
                    for name, text in texts.items()
                    if name in kinds
                }
            )
        except _WrongField as error:
            raise UserError(f"the metadata of '{path}' is damaged: {error}; export the network again") from None
        except (ValueError, TypeError, KeyError):
            raise UserError(_WRONG.format(path=path)) from None

    @staticmethod
    def from_json(text: Union[str, bytes], path: str) -> ExportMetadata:
        """Return the metadata from the text of `as_json`.

        Raises:
            UserError: the file `path` does not hold such a text.
        """
        try:
            return _from_values(dict(json.loads(text)))
        except _WrongField as error:
            raise UserError(f"the metadata of '{path}' is damaged: {error}; export the network again") from None
        except (ValueError, TypeError, KeyError):
            raise UserError(_WRONG.format(path=path)) from None


_WRONG = (
    "'{path}' does not hold the metadata that tools/export.py writes (model, class names and preprocessing): it comes "
    "from other software or is damaged; export the network again"
)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_list_of(value: Any, is_entry: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_entry, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# Field of the metadata or of its preprocessing -> (whether a value of JSON is right, what is expected).
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_text, "text"),
    "class_names": (lambda value: _is_list_of(value, _is_text), "a list of names"),
    "preprocessing": (lambda value: isinstance(value, Mapping), "an object"),
    "output": (_is_text, "text"),
    **dict.fromkeys(
        ("takes_pixels", "dynamic_batch", "half"), (lambda value: isinstance(value, bool), "true or false")
    ),
    **dict.fromkeys(("image_resize", "in_channels"), (_is_count, "a whole number above 0")),
    "crop_pct": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "interpolation": (_is_text, "text"),
    **dict.fromkeys(("mean", "std"), (lambda value: _is_list_of(value, _is_number), "a list of numbers")),
}


class _WrongField(ValueError):
    """A field has a value of a wrong kind."""


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Raise `_WrongField` for the first value that is not of the kind of its field."""
    for name, value in values.items():
        is_right, expected = _KINDS.get(name, (None, ""))
        if is_right is not None and not is_right(value):
            raise _WrongField(f"{name} is {json.dumps(value, ensure_ascii=False)}, and {expected} is expected")


def _from_values(values: Mapping[str, Any]) -> ExportMetadata:
    """Return the metadata from values of JSON.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or has a wrong value.
    """
    values = {each.name: values[each.name] for each in fields(ExportMetadata)}
    _check_kinds(values)
    _check_kinds(values["preprocessing"])
    output = values["output"]
    if output not in (LOGITS, PROBABILITIES, FEATURES, FEATURE_MAPS):
        raise ValueError(output)
    return ExportMetadata(
        values["model"],
        tuple(values["class_names"]),
        dict(values["preprocessing"]),
        output,
        *(values[name] for name in ("takes_pixels", "dynamic_batch", "half")),
    )
