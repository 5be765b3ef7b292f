"""The registry of models by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any, Callable, Union

from mindspore import nn

from mindcv.models.pretrained import list_pretrained_tags, pretrained_options, pretrained_weights, split_tag
from mindcv.utils.checks import check_text, shown
from mindcv.utils.errors import UserError, unknown_name

__all__ = [
    "get_pretrained_cfg",
    "get_pretrained_cfg_value",
    "has_pretrained_cfg_key",
    "is_model",
    "is_model_in_modules",
    "is_model_pretrained",
    "list_models",
    "list_modules",
    "model_entrypoint",
    "register_model",
]

_entrypoints: dict[str, Callable[..., nn.Cell]] = {}


def register_model(fn: Callable[..., nn.Cell]) -> Callable[..., nn.Cell]:
    """Register the entry function `fn` under its own name and export it from its module. Use it as a decorator.

    Args:
        fn: function with the keywords `pretrained`, `num_classes` and `in_channels` that returns a network.

    Returns:
        The same function.

    Raises:
        ValueError: a model with this name is already registered.
    """
    if fn.__name__ in _entrypoints:
        raise ValueError(f"a model named '{fn.__name__}' is already registered")
    _entrypoints[fn.__name__] = fn
    exported = sys.modules[fn.__module__].__dict__.setdefault("__all__", [])
    if fn.__name__ not in exported:
        exported.append(fn.__name__)
    return fn


def list_models(
    filter: Union[str, Sequence[str]] = "",
    module: str = "",
    pretrained: bool = False,
    exclude_filters: Union[str, Sequence[str]] = "",
) -> list[str]:
    """Return the sorted names of registered models.

    Args:
        filter: shell pattern that a name must match, such as '*v2*', or a list of patterns of which it must match one.
            '' matches every name.
        module: name of the module that defines the models, such as 'convnext'. '' selects all modules.
        pretrained: whether to list only models with published weights (see `list_pretrained_tags`).
        exclude_filters: pattern, or list of patterns, that a name must not match.

    Raises:
        UserError: `filter` or `exclude_filters` is neither text nor a list of texts.
    """
    wanted, excluded = _patterns("filter", filter), _patterns("exclude_filters", exclude_filters)
    return sorted(
        name
        for name in _entrypoints
        if (not any(wanted) or any(fnmatch(name, pattern) for pattern in wanted))
        and (not module or is_model_in_modules(name, [module]))
        and (not pretrained or is_model_pretrained(name))
        and not any(pattern and fnmatch(name, pattern) for pattern in excluded)
    )


def _patterns(name: str, given: Union[str, Sequence[str]]) -> list[str]:
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise UserError(f"{name} must be a pattern such as '*v2*', or a list of patterns, got {shown(given)}")
    return list(patterns)


def list_modules() -> list[str]:
    """Return the sorted names of the modules that define models."""
    return sorted({_module_of(name) for name in _entrypoints})


def is_model(model_name: str) -> bool:
    """Return whether a model is registered. If the name has a tag, published weights with this tag must exist too."""
    name, tag = split_tag(model_name)
    return name in _entrypoints and (not tag or tag in list_pretrained_tags(name))


def is_model_in_modules(model_name: str, module_names: Sequence[str]) -> bool:
    """Return whether the model is registered and defined in one of the modules."""
    return is_model(model_name) and _module_of(split_tag(model_name)[0]) in module_names


def is_model_pretrained(model_name: str) -> bool:
    """Return whether the model has published weights. If the name has a tag, only this tag counts.

    Raises:
        UserError: the model is unknown.
    """
    name, tag = split_tag(model_name)
    model_entrypoint(name)
    tags = list_pretrained_tags(name)
    return tag in tags if tag else bool(tags)


def get_pretrained_cfg(model_name: str) -> dict[str, Any]:
    """Return the description of a model's published weights: address, licence, preprocessing and accuracy.

    Args:
        model_name: `model.tag`, or `model` for the model's first tag.

    Raises:
        UserError: the model is unknown, or it has no published weights with this tag.
    """
    model_entrypoint(split_tag(model_name)[0])
    weights = pretrained_weights(model_name)
    known = weights._asdict()
    del known["preprocessing"]
    return {**known, **pretrained_options(weights)}


def get_pretrained_cfg_value(model_name: str, cfg_key: str) -> Any:
    """Return one entry of `get_pretrained_cfg`.

    Raises:
        UserError: the description does not have this key, or `get_pretrained_cfg` raises it.
    """
    known = get_pretrained_cfg(model_name)
    if cfg_key not in known:
        raise UserError(unknown_name("key", cfg_key, known))
    return known[cfg_key]


def has_pretrained_cfg_key(model_name: str, cfg_key: str) -> bool:
    """Return whether `get_pretrained_cfg` of the model has this key with a value that is not None."""
    return get_pretrained_cfg(model_name).get(cfg_key) is not None


def model_entrypoint(model_name: str) -> Callable[..., nn.Cell]:
    """Return the entry function of a model.

    Raises:
        UserError: the model is unknown. The message has the nearest name and all known names.
    """
    if check_text("model_name", model_name) not in _entrypoints:
        raise UserError(unknown_name("model", model_name, _entrypoints))
    return _entrypoints[model_name]


def _module_of(model_name: str) -> str:
    return _entrypoints[model_name].__module__.rsplit(".", 1)[-1]
