"""What an exported file says about itself: the model, its classes and the preprocessing of its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Union

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
        except (ValueError, TypeError, KeyError):
            raise UserError(_WRONG.format(path=path)) from None


_WRONG = (
    "'{path}' does not hold the metadata that tools/export.py writes (model, class names and preprocessing): it comes "
    "from other software or is damaged; export the network again"
)


def _from_values(values: Mapping[str, Any]) -> ExportMetadata:
    """Return the metadata from values of JSON.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or has a wrong value.
    """
    output = str(values["output"])
    if output not in (LOGITS, PROBABILITIES, FEATURES, FEATURE_MAPS):
        raise ValueError(output)
    return ExportMetadata(
        str(values["model"]),
        tuple(map(str, values["class_names"])),
        dict(values["preprocessing"]),
        output,
        *(bool(values[name]) for name in ("takes_pixels", "dynamic_batch", "half")),
    )
