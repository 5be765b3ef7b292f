"""The list of models by name."""

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
    """Decorator: make the entry function `fn` known under its own name, and export it from its module.

    Raises:
        ValueError: another function has that name already.
    """
    if fn.__name__ in _entrypoints:
        raise ValueError(f"a model named '{fn.__name__}' is registered already")
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
    """Names of registered models, sorted.

    Args:
        filter: shell pattern a name must match, such as '*v2*', or several patterns, of which it must match one.
        module: only models defined in this module, such as 'convnext'.
        pretrained: only models with published weights; `list_pretrained_tags` has which.
        exclude_filters: a pattern, or several, that a name must not match.
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
    """Names of the modules that define models, sorted."""
    return sorted({_module_of(name) for name in _entrypoints})


def is_model(model_name: str) -> bool:
    """Whether a model of that name is registered; with a tag, whether it has published weights of that tag."""
    name, tag = split_tag(model_name)
    return name in _entrypoints and (not tag or tag in list_pretrained_tags(name))


def is_model_in_modules(model_name: str, module_names: Sequence[str]) -> bool:
    """Whether the model is defined in one of the modules."""
    return is_model(model_name) and _module_of(split_tag(model_name)[0]) in module_names


def is_model_pretrained(model_name: str) -> bool:
    """Whether there are published weights of the model; of a name with a tag, whether of that tag.

    Raises:
        UserError: see `model_entrypoint`.
    """
    name, tag = split_tag(model_name)
    model_entrypoint(name)
    tags = list_pretrained_tags(name)
    return tag in tags if tag else bool(tags)


def get_pretrained_cfg(model_name: str) -> dict[str, Any]:
    """What is known of the published weights of a model, or of a model and tag: address, licence, preprocessing ...

    Raises:
        UserError: see `model_entrypoint` and `pretrained_weights`.
    """
    model_entrypoint(split_tag(model_name)[0])
    weights = pretrained_weights(model_name)
    known = weights._asdict()
    del known["preprocessing"]
    return {**known, **pretrained_options(weights)}


def get_pretrained_cfg_value(model_name: str, cfg_key: str) -> Any:
    """One entry of `get_pretrained_cfg`.

    Raises:
        UserError: see `get_pretrained_cfg`; or it has no such key.
    """
    known = get_pretrained_cfg(model_name)
    if cfg_key not in known:
        raise UserError(unknown_name("key", cfg_key, known))
    return known[cfg_key]


def has_pretrained_cfg_key(model_name: str, cfg_key: str) -> bool:
    """Whether `get_pretrained_cfg` of the model has that key, with a value."""
    return get_pretrained_cfg(model_name).get(cfg_key) is not None


def model_entrypoint(model_name: str) -> Callable[..., nn.Cell]:
    """The entry function of a model.

    Raises:
        UserError: no such model; the message has the nearest name and all there are.
    """
    if check_text("model_name", model_name) not in _entrypoints:
        raise UserError(unknown_name("model", model_name, _entrypoints))
    return _entrypoints[model_name]


def _module_of(model_name: str) -> str:
    return _entrypoints[model_name].__module__.rsplit(".", 1)[-1]
