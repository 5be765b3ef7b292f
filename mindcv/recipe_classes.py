"""The names of a checkpoint's classes, for the scripts that write or print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from mindcv.config import ExportConfig, InferConfig
from mindcv.data import imagenet_class_names, read_names_for_model
from mindcv.utils.errors import UserError

__all__ = ["names_of_classes"]


def names_of_classes(
    config: Union[InferConfig, ExportConfig], metadata: Mapping[str, Any], num_classes: int
) -> list[str]:
    """Names from the file given, else from the checkpoint, else ImageNet's for 1000 classes.

    Raises:
        UserError: there are none, not one for each class, or the file cannot be used.
    """
    if config.class_names_file:
        own = metadata.get("class_to_idx", {})
        names = read_names_for_model(config.class_names_file, own, num_classes)
    elif "class_to_idx" in metadata:
        names = sorted(metadata["class_to_idx"], key=metadata["class_to_idx"].get)
    elif num_classes == 1000:
        names = imagenet_class_names()
    else:
        source = config.ckpt_path or config.model
        raise UserError(f"'{source}' holds no class names: give them, one a line, as --class_names_file")
    if len(names) != num_classes:
        raise UserError(
            f"'{config.ckpt_path or config.model}' has {len(names)} class names for its {num_classes} classes"
        )
    return names
