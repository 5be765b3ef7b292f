"""Creates an optimizer from its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Optional, Union

from mindspore import Parameter, nn

from mindcv.optim.adam import Adam, NAdam
from mindcv.optim.adamw import AdamW
from mindcv.optim.adan import Adan
from mindcv.optim.base import GroupOptimizer, as_list
from mindcv.optim.from_mindspore import SGD, Adagrad, Momentum
from mindcv.optim.lamb import Lamb
from mindcv.optim.lion import Lion
from mindcv.optim.lr_table import Rate
from mindcv.optim.param_groups import filter_groups, layer_decay_groups, roles_of, weight_decay_groups
from mindcv.optim.rmsprop import RMSProp
from mindcv.utils.checks import check_flags, check_name, check_not_negative, check_number, check_positive
from mindcv.utils.errors import UserError, nearest

__all__ = ["OPTIMIZER_NAMES", "betas_problem", "create_optimizer", "nesterov_momentum_problem", "nesterov_problem"]

_Params = Union[nn.Cell, Sequence[Parameter], Sequence[dict[str, Any]]]

# name -> (class, arguments of `create_optimizer` that it uses, keyword arguments that only it has)
_OPTIMIZERS: dict[str, tuple[Callable[..., GroupOptimizer], tuple[str, ...], tuple[str, ...]]] = {
    "sgd": (SGD, ("momentum", "nesterov"), ("dampening",)),
    "momentum": (Momentum, ("momentum", "nesterov"), ()),
    "adam": (Adam, ("eps", "nesterov"), ("betas",)),
    "adamw": (AdamW, ("eps",), ("betas",)),
    "nadam": (NAdam, ("eps", "schedule_decay"), ("betas",)),
    "lamb": (Lamb, ("eps",), ("betas",)),
    "lion": (Lion, (), ("betas",)),
    "adan": (Adan, ("eps",), ("betas",)),
    "rmsprop": (RMSProp, ("eps", "momentum"), ("decay", "centered")),
    "adagrad": (Adagrad, (), ("accum",)),
}
OPTIMIZER_NAMES = tuple(_OPTIMIZERS)
# class -> argument of `create_optimizer` -> name of this argument in the class, where they differ
_SPELLINGS = {Adam: {"nesterov": "use_nesterov"}}


def create_optimizer(
    model_or_params: _Params,
    opt: str = "adam",
    lr: Optional[Rate] = 1e-3,
    weight_decay: float = 0,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay_filter: str = "disable",
    layer_decay: Optional[float] = None,
    loss_scale: float = 1.0,
    schedule_decay: float = 4e-3,
    checkpoint_path: str = "",
    eps: float = 1e-10,
    layer_decay_type: str = "single",
    betas: Optional[Sequence[float]] = None,
    **kwargs: Any,
) -> GroupOptimizer:
    """Create an optimizer from its name. The docstrings of the classes give the formulas.

    Args:
        model_or_params: a network, whose trainable parameters are used, or parameters, or groups (see
            `GroupOptimizer`).
        opt: name of the optimizer. `sgd`, `momentum`, `adam`, `nadam`, `rmsprop` and `adagrad` add the weight decay to
            the gradient. `adamw`, `lamb`, `lion` and `adan` decouple it, as in their papers. `sgd` with `momentum` 0 is
            plain SGD.
        lr: a learning rate, a table with one rate per step, or a schedule Cell. After its end, a table keeps its last
            rate. The `lr` of a group can have the same forms.
        weight_decay: coefficient, at least 0.
        momentum: momentum in [0, 1) for `sgd`, `momentum` and `rmsprop`. The other optimizers ignore it.
        nesterov: use the Nesterov form of `sgd`, `momentum` or `adam`. `nadam` always uses it.
        weight_decay_filter: rule that selects the decayed parameters, see `weight_decay_groups`. For groups, it applies
            to those without their own `weight_decay`.
        layer_decay: factor in (0, 1]. Each layer further from the head multiplies the learning rate by it once more.
            None gives all layers the same rate. It needs a network that declares the layers of its parameters in
            `parameter_roles`, as each ConvNeXt does. Groups use `lr_scale` instead.
        loss_scale: factor, above 0, that the incoming gradients were multiplied by.
        schedule_decay: speed of the momentum schedule of `nadam`, at least 0. The other optimizers ignore it.
        checkpoint_path: not supported in this version; it must be empty.
        eps: small number above 0 for `adam`, `adamw`, `nadam`, `lamb`, `adan` and `rmsprop`. The others ignore it.
        layer_decay_type: how parameters are divided into layers, `single` or `group`, see `layer_ids`.
        betas: decay rates of the moments: two for `adam`, `adamw`, `nadam`, `lamb` and `lion`, three for `adan`. None
            means the default of the class.
        **kwargs: options that only some optimizers have: `dampening` for `sgd`, `decay` and `centered` for `rmsprop`,
            `accum` for `adagrad`. The classes describe them.

    Raises:
        UserError: the optimizer, the rule or a keyword is unknown, a value has the wrong type or is out of its range,
            or `checkpoint_path` is not empty.
        ValueError, TypeError, KeyError, RuntimeError: `nn.Optimizer` finds groups that are not well formed.
    """
    name = check_name("opt", opt, _OPTIMIZERS, ignore_case=True)
    if checkpoint_path:
        raise UserError("checkpoint_path of the optimizer is not supported in this version: leave it empty")
    check_not_negative(weight_decay=weight_decay, schedule_decay=schedule_decay)
    check_number("momentum", momentum, low=0, below=1)
    check_positive(loss_scale=loss_scale, eps=eps)
    check_flags(nesterov=nesterov)
    build, taken, own_keywords = _OPTIMIZERS[name]
    problem = nesterov_problem(name, nesterov) or nesterov_momentum_problem(name, nesterov, momentum)
    if problem:
        raise UserError(f"nesterov (use_nesterov): {problem}")
    if betas is not None:
        kwargs["betas"] = betas
    for key in kwargs:
        if key not in own_keywords:
            allowed = ", ".join(own_keywords) or "none"
            raise UserError(f"opt '{name}' has no keyword '{key}'{nearest(key, own_keywords)} (it has: {allowed})")
    values = {"momentum": float(momentum), "nesterov": nesterov, "eps": eps, "schedule_decay": schedule_decay}
    given = {key: values[key] for key in taken}
    if build is Momentum and given.pop("nesterov"):
        build = SGD  # nn.Momentum silently ignores use_nesterov on CPU. nn.SGD has the same formula.
        given["nesterov"] = True
    return build(
        _groups(model_or_params, weight_decay, weight_decay_filter, layer_decay, layer_decay_type),
        learning_rate=lr,
        weight_decay=float(weight_decay),
        loss_scale=float(loss_scale),
        **{_SPELLINGS.get(build, {}).get(key, key): value for key, value in given.items()},
        **kwargs,
    )


def betas_problem(opt: str, num_betas: int) -> str:
    """Return a clause that says that an optimizer needs another number of betas, or '' if it does not."""
    build, _, own_keywords = _OPTIMIZERS[opt]
    if "betas" not in own_keywords:
        return f"opt '{opt}' has no betas"
    expected = len(build.default_betas)
    return "" if num_betas == expected else f"opt '{opt}' needs {expected} numbers, got {num_betas}"


def nesterov_problem(opt: str, nesterov: bool) -> str:
    """Return a clause that says why an optimizer does not accept `nesterov`, or '' if it does."""
    # nadam always uses Nesterov's momentum, so it needs no argument for it.
    names = [name for name, (_, taken, _) in _OPTIMIZERS.items() if "nesterov" in taken or name == "nadam"]
    if not nesterov or opt in names:
        return ""
    return f"only {', '.join(names[:-1])} and {names[-1]} have a Nesterov form, got opt '{opt}'"


def nesterov_momentum_problem(opt: str, nesterov: bool, momentum: float) -> str:
    """Return a clause that says that Nesterov's form of an optimizer needs another `momentum`, or '' if it does not."""
    taken = _OPTIMIZERS[opt][1]
    needs_momentum = nesterov and "nesterov" in taken and "momentum" in taken
    return f"opt '{opt}' needs a momentum above 0 for it" if needs_momentum and not momentum > 0 else ""


def _groups(
    model_or_params: _Params, weight_decay: float, rule: str, layer_decay: Optional[float], layer_decay_type: str
) -> list[dict[str, Any]]:
    is_network = isinstance(model_or_params, nn.Cell)
    roles = roles_of(model_or_params) if is_network else {}
    items = as_list("model_or_params", model_or_params.get_parameters() if is_network else model_or_params)
    if any(isinstance(item, dict) for item in items):
        if layer_decay is not None:
            raise UserError("layer_decay cannot be combined with groups; groups state their own lr_scale")
        return filter_groups(items, weight_decay, rule)
    if layer_decay is not None:
        return layer_decay_groups(items, weight_decay, rule, layer_decay, layer_decay_type, roles)
    return weight_decay_groups([p for p in items if p.requires_grad], weight_decay, rule, roles)
