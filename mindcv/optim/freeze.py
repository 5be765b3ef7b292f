"""Parameters that are not trained, by patterns of names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from mindspore import nn

from mindcv.utils.checks import check_network, shown
from mindcv.utils.errors import UserError, nearest

__all__ = ["freeze"]


def freeze(model: nn.Cell, patterns: Sequence[str]) -> list[str]:
    """Leave parameters out of the training: sets `requires_grad` to False.

    To be called before `create_optimizer`, which takes what is trainable then.

    Args:
        model: the network.
        patterns: shell patterns of parameter names: `feature.0.*` is the stem, `feature.*` all but the last norm
            and the classifier. A `*` matches dots too.

    Returns:
        The names that a pattern matches, in the network's order.

    Raises:
        UserError: a pattern that matches nothing, or nothing left to train; the model is then as it was.
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
    """The names, and a pattern for each module above them."""
    modules = {".".join(parts[:i]) for parts in (name.split(".") for name in names) for i in range(1, len(parts))}
    return [*names, *(f"{module}.*" for module in sorted(modules))]
