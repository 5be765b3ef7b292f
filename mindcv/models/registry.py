"""The list of models by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Callable, Union

from mindspore import nn

from mindcv.utils.errors import UserError, unknown_name

__all__ = [
    "register_model",
    "list_models",
    "list_modules",
    "is_model",
    "is_model_in_modules",
    "is_model_pretrained",
    "model_entrypoint",
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
    filter: str = "",
    module: str = "",
    pretrained: bool = False,
    exclude_filters: Union[str, Sequence[str]] = "",
) -> list[str]:
    """Names of registered models, sorted.

    Args:
        filter: shell pattern a name must match, such as '*v2*'.
        module: only models defined in this module, such as 'convnext'.
        pretrained: only models with published weights.
        exclude_filters: a pattern, or several, that a name must not match.
    """
    excluded = [exclude_filters] if isinstance(exclude_filters, str) else list(exclude_filters)
    return sorted(
        name
        for name in _entrypoints
        if (not filter or fnmatch(name, filter))
        and (not module or is_model_in_modules(name, [module]))
        and (not pretrained or is_model_pretrained(name))
        and not any(pattern and fnmatch(name, pattern) for pattern in excluded)
    )


def list_modules() -> list[str]:
    """Names of the modules that define models, sorted."""
    return sorted({_module_of(name) for name in _entrypoints})


def is_model(model_name: str) -> bool:
    """Whether a model of that name is registered."""
    return model_name in _entrypoints


def is_model_in_modules(model_name: str, module_names: Sequence[str]) -> bool:
    """Whether the model is defined in one of the modules."""
    return is_model(model_name) and _module_of(model_name) in module_names


def is_model_pretrained(model_name: str) -> bool:
    """Whether published weights of the model are known. This version knows none (`mindcv/models/pretrained.py`)."""
    model_entrypoint(model_name)
    return False


def model_entrypoint(model_name: str) -> Callable[..., nn.Cell]:
    """The entry function of a model.

    Raises:
        UserError: no such model; the message has the nearest name and all there are.
    """
    if model_name not in _entrypoints:
        raise UserError(unknown_name("model", model_name, _entrypoints))
    return _entrypoints[model_name]


def _module_of(model_name: str) -> str:
    return _entrypoints[model_name].__module__.rsplit(".", 1)[-1]
