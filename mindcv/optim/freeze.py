"""Freezes parameters whose names match patterns, so that they are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from mindspore import nn

from mindcv.utils.checks import check_network, shown
from mindcv.utils.errors import UserError, nearest

__all__ = ["freeze"]


def freeze(model: nn.Cell, patterns: Sequence[str]) -> list[str]:
    """Exclude parameters from training by setting `requires_grad` to False.

    Call it before `create_optimizer`, which uses the parameters that are trainable at that time.

    Args:
        model: the network.
        patterns: shell patterns of parameter names. `feature.0.*` matches the stem; `feature.*` matches everything
            except the last norm and the classifier. A `*` also matches dots.

    Returns:
        The names that match a pattern, in the order of the network.

    Raises:
        UserError: a pattern matches no parameter, or no parameter is left to train. The model is then unchanged.
    """
    check_network("model", model)
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise UserError(f"patterns must be a list of strings such as ['feature.0.*'], got {shown(patterns)}")
    params = list(model.get_parameters())
    names = [p.name for p in params]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"freeze: no parameter matches '{pattern}'{nearest(pattern, _suggestions(names))}")
    matched = [p for p in params if any(fnmatchcase(p.name, pattern) for pattern in patterns)]
    frozen = {id(p) for p in matched}
    if not any(p.requires_grad and id(p) not in frozen for p in params):
        raise UserError(f"freeze: {', '.join(patterns)} would leave no parameter to train")
    for param in matched:
        param.requires_grad = False
    return [p.name for p in matched]


def _suggestions(names: Sequence[str]) -> list[str]:
    """Return the names, and a pattern for each module that contains them."""
    modules = {".".join(parts[:i]) for parts in (name.split(".") for name in names) for i in range(1, len(parts))}
    return [*names, *(f"{module}.*" for module in sorted(modules))]
