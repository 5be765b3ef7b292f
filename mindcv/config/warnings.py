"""Options that are allowed and probably not what the user meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Callable

__all__ = ["suspicions"]

_Test = Callable[[Any], bool]


def _is_mixed(config: Any) -> bool:
    return config.mixup > 0 or config.cutmix > 0 or config.cutmix_minmax is not None


def _is_off_by_255(numbers: Sequence[float]) -> bool:
    return 0 < max(numbers, default=0) <= 1


def _times_255(name: str, numbers: Sequence[float]) -> str:
    written = " ".join(f"{number * 255:g}" for number in numbers)
    return (
        f"{name}: {_listed(numbers)} seems to be on the scale from 0 to 1, but pixels are on the scale from 0 to "
        + (f"255; you may have meant --{name} {written}")
    )


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _strongest(config: Any) -> float:
    jitter = config.color_jitter
    return max(jitter, default=0.0) if isinstance(jitter, list) else jitter or 0.0


def _num_validations(config: Any) -> int:
    return -(-config.epoch_size // config.val_interval)


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


# (the options looked at, whether they are suspicious, the sentence for the user)
_SUSPICIOUS: tuple[tuple[Sequence[str], _Test, Callable[[Any], str]], ...] = (
    (("mean",), lambda c: _is_off_by_255(c.mean), lambda c: _times_255("mean", c.mean)),
    (("std",), lambda c: _is_off_by_255(c.std), lambda c: _times_255("std", c.std)),
    (
        ("scale",),
        lambda c: c.scale[1] > 1,
        lambda c: f"scale: no crop is larger than the image, so numbers above 1 ({c.scale[1]:g}) act as 1",
    ),
    (
        ("color_jitter",),
        lambda c: _strongest(c) > 1,
        lambda c: f"color_jitter: {_strongest(c):g} is very strong; usual values are between 0 and 1",
    ),
    (
        ("mixup", "cutmix", "cutmix_minmax", "batch_size"),
        lambda c: _is_mixed(c) and c.batch_size == 1,
        lambda c: "mixup and cutmix have no effect with batch_size 1: an image is mixed with another one of its batch",
    ),
    (
        ("mixup", "cutmix", "cutmix_minmax", "mixup_group_size"),
        lambda c: _is_mixed(c) and c.mixup_group_size == 1,
        lambda c: (
            "mixup and cutmix have no effect with mixup_group_size 1: an image is mixed with another one of its group"
        ),
    ),
    *(
        (
            (name,),
            lambda c, name=name: getattr(c, name) > 10,
            lambda c, name=name: (
                f"{name}: {getattr(c, name):g} is an unusual alpha; usual values are between 0.1 and 1"
            ),
        )
        for name in ("mixup", "cutmix")
    ),
    (
        ("mixup_off_epoch", "epoch_size"),
        lambda c: c.mixup_off_epoch >= c.epoch_size,
        lambda c: f"mixup_off_epoch: {c.mixup_off_epoch} is never reached in {_epochs(c.epoch_size)}",
    ),
    (
        ("early_stopping_patience", "epoch_size", "val_interval"),
        lambda c: c.early_stopping_patience is not None and c.early_stopping_patience >= _num_validations(c),
        lambda c: (
            f"early_stopping_patience: {c.early_stopping_patience} validations without improvement cannot happen, "
            f"because the run has {_num_validations(c)}"
        ),
    ),
    (
        ("val_while_train", "val_interval", "epoch_size"),
        lambda c: c.val_while_train and c.val_interval > c.epoch_size,
        lambda c: (
            f"val_interval: {c.val_interval} is more than the run has epochs ({c.epoch_size}), so only the last "
            "epoch is validated"
        ),
    ),
    (
        ("ema", "ema_decay"),
        lambda c: c.ema and c.ema_decay == 1,
        lambda c: "ema_decay: with 1 the averaged weights stay at their initial values; 0.9999 is usual",
    ),
    (
        ("warmup_lr", "lr"),
        lambda c: c.warmup_lr is not None and c.warmup_lr > c.lr,
        lambda c: f"warmup_lr: {c.warmup_lr:g} is above lr ({c.lr:g}), so the learning rate falls in the warm-up",
    ),
    (
        ("warmup_factor",),
        lambda c: c.warmup_factor > 1,
        lambda c: f"warmup_factor: {c.warmup_factor:g} is above 1, so the learning rate falls in the warm-up",
    ),
    (
        ("warmup_epochs", "epoch_size"),
        lambda c: c.warmup_epochs >= c.epoch_size,
        lambda c: (
            f"warmup_epochs: the run has {_epochs(c.epoch_size)} and the warm-up takes {c.warmup_epochs}, so the "
            "learning rate never decays"
        ),
    ),
    (
        ("scheduler", "decay_epochs", "num_cycles", "warmup_epochs", "epoch_size"),
        lambda c: c.scheduler == "cosine_decay" and _planned(c) < 0.8 * c.epoch_size,
        lambda c: (
            f"decay_epochs: warm-up and decay end after {_epochs(_planned(c))} of {c.epoch_size}; the learning rate "
            "then stays at min_lr"
        ),
    ),
    (
        ("scheduler", "multi_step_decay_milestones", "warmup_epochs", "epoch_size"),
        lambda c: (
            c.scheduler == "multi_step_decay"
            and min(c.multi_step_decay_milestones, default=0) + c.warmup_epochs >= c.epoch_size
        ),
        lambda c: (
            f"multi_step_decay_milestones: the run of {_epochs(c.epoch_size)} ends before the first milestone, "
            "so the learning rate never decays"
        ),
    ),
    (
        ("scheduler", "decay_epochs", "warmup_epochs", "epoch_size"),
        lambda c: c.scheduler == "step_decay" and c.decay_epochs + c.warmup_epochs >= c.epoch_size,
        lambda c: (
            f"decay_epochs: the run of {_epochs(c.epoch_size)} ends before the first decay, so the learning rate "
            "never decays"
        ),
    ),
    (
        ("scheduler", "decay_rate"),
        lambda c: c.scheduler in ("step_decay", "multi_step_decay", "exponential_decay") and c.decay_rate > 1,
        lambda c: f"decay_rate: {c.decay_rate:g} is above 1, so the learning rate grows with each decay",
    ),
)


def _planned(config: Any) -> int:
    return config.warmup_epochs + config.num_cycles * config.decay_epochs


_VALIDATES = (lambda c: c.val_while_train, "val_while_train is on")
_AVERAGES = (lambda c: c.ema, "ema is on")
_WARMS_UP = (lambda c: c.warmup_epochs > 0, "warmup_epochs is above 0")
_ERASES = (lambda c: c.re_prob > 0, "re_prob is above 0")
_MIXES = (_is_mixed, "mixup or cutmix is on")
_DISTILLS = (lambda c: c.teacher_model, "teacher_model is given")


def _with(option: str, *values: str) -> tuple[_Test, str]:
    return lambda c: getattr(c, option) in values, f"{option} is {' or '.join(values)}"


# Option -> (whether it has an effect, when it has one). On the command line it is a mistake where it has none; recipes
# often hold such options, because they are written from a template.
_HAS_EFFECT: dict[str, tuple[_Test, str]] = {
    "data_dir": (lambda c: c.dataset != "digits", "dataset is not digits"),
    **dict.fromkeys(("val_interval", "eval_shuffle", "val_split", "val_amp_level"), _VALIDATES),
    **dict.fromkeys(("ema_decay", "ema_warmup", "val_ema"), _AVERAGES),
    **dict.fromkeys(("warmup_factor", "warmup_lr"), _WARMS_UP),
    **dict.fromkeys(("re_scale", "re_ratio", "re_value", "re_count", "re_max_attempts"), _ERASES),
    **dict.fromkeys(("mixup_mode", "cutmix_prob", "mixup_off_epoch", "mixup_group_size"), _MIXES),
    **dict.fromkeys(("distillation_type", "distillation_alpha", "distillation_tau"), _DISTILLS),
    "mixup_switch_prob": (
        lambda c: c.mixup > 0 and (c.cutmix > 0 or c.cutmix_minmax is not None),
        "mixup and cutmix are both on",
    ),
    "color_jitter": (lambda c: not c.auto_augment, "auto_augment is off"),
    "clip_value": (lambda c: c.clip_grad, "clip_grad is on"),
    "early_stopping_metric": (lambda c: c.early_stopping_patience is not None, "early_stopping_patience is given"),
    "layer_decay_type": (lambda c: c.layer_decay is not None, "layer_decay is given"),
    "momentum": _with("opt", "sgd", "momentum", "rmsprop"),
    "eps": _with("opt", "adam", "adamw", "nadam", "lamb", "adan", "rmsprop"),
    "min_lr": _with("scheduler", "cosine_decay", "one_cycle", "cyclic"),
    "decay_epochs": _with("scheduler", "cosine_decay", "step_decay"),
    "decay_rate": _with("scheduler", "step_decay", "multi_step_decay", "exponential_decay", "polynomial_decay"),
    "multi_step_decay_milestones": _with("scheduler", "multi_step_decay"),
    "num_cycles": _with("scheduler", "cosine_decay", "cyclic"),
    "cycle_decay": _with("scheduler", "cosine_decay"),
    "bce_target_threshold": _with("loss", "BCE"),
    "amp_dtype": (lambda c: c.amp_level != "O0" or c.val_amp_level != "O0", "amp_level or val_amp_level is not O0"),
}


def suspicions(config: Any, names: Collection[str], is_complete: bool = True) -> list[str]:
    """Return a sentence for each suspicious choice among the options `names` of a configuration.

    Args:
        config: the configuration; only what the user gave can be suspicious.
        names: the options that have their final values; those of a script that does not train are fewer.
        is_complete: whether all options have their final values.
    """
    given = {name for name, source in config.given.items() if source != "checkpoint"}
    told = [
        says(config)
        for looked_at, is_suspicious, says in _SUSPICIOUS
        if set(looked_at) <= set(names) and given & set(looked_at) and is_suspicious(config)
    ]
    if is_complete and config.script in ("train.py", "pretrain.py"):
        told += [
            f"{name}: has no effect unless {condition}"
            for name, (has_effect, condition) in _HAS_EFFECT.items()
            if name in names and config.given.get(name) == "command line" and not has_effect(config)
        ]
    return told
