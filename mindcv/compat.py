"""Names of MindCV that this library has in another place or under another name.

`install` makes the modules and names of `ALIASES` importable. Each name is looked up when it is first used. This
library does not have the names of `INSTEAD`: importing one fails with a message that says what to use instead.

Decision 0004 explains why these names are aliases and not real modules.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional, Union

import mindspore as ms
import numpy as np
from mindspore import nn

__all__ = [
    "ALIASES",
    "INSTEAD",
    "CheckpointManager",
    "ValCallback",
    "auto_mixed_precision",
    "checkpoint_root",
    "create_finetune_optimizer",
    "detect_file_type",
    "get_metrics",
    "install",
    "load_model_checkpoint",
    "pretrained_cfgs",
    "require_customized_train_step",
    "set_logger",
    "set_seed",
]

_UTILS = {
    "CheckpointManager": "mindcv.compat:CheckpointManager",
    "DownLoad": "mindcv.utils.download:DownLoad",
    "ValCallback": "mindcv.compat:ValCallback",
    "auto_mixed_precision": "mindcv.compat:auto_mixed_precision",
    "create_trainer": "mindcv.engine:create_trainer",
    "get_metrics": "mindcv.compat:get_metrics",
    "require_customized_train_step": "mindcv.compat:require_customized_train_step",
    "set_logger": "mindcv.compat:set_logger",
    "set_seed": "mindcv.compat:set_seed",
}

# MindCV's module -> its names -> their place in this library, as 'module:name'. With "()" in front,
# the alias is the value that a call of this function returns.
ALIASES: dict[str, dict[str, str]] = {
    "mindcv.utils": _UTILS,
    "mindcv.utils.amp": {"auto_mixed_precision": _UTILS["auto_mixed_precision"]},
    "mindcv.utils.callbacks": {"ValCallback": _UTILS["ValCallback"]},
    "mindcv.utils.checkpoint_manager": {"CheckpointManager": _UTILS["CheckpointManager"]},
    "mindcv.utils.download": {"get_default_download_root": "mindcv.utils.download:cache_root"},
    "mindcv.utils.logger": {"set_logger": _UTILS["set_logger"]},
    "mindcv.utils.path": {"detect_file_type": "mindcv.compat:detect_file_type"},
    "mindcv.utils.random": {"set_seed": _UTILS["set_seed"]},
    "mindcv.utils.train_step": {},
    "mindcv.utils.trainer_factory": {
        name: _UTILS[name] for name in ("create_trainer", "get_metrics", "require_customized_train_step")
    },
    "mindcv.loss.binary_cross_entropy_smooth": {"BinaryCrossEntropySmooth": "mindcv.loss:BinaryCrossEntropySmooth"},
    "mindcv.loss.cross_entropy_smooth": {"CrossEntropySmooth": "mindcv.loss:CrossEntropySmooth"},
    "mindcv.models.helpers": {
        "get_checkpoint_download_root": "mindcv.compat:checkpoint_root",
        "load_model_checkpoint": "mindcv.compat:load_model_checkpoint",
    },
    "mindcv.models.registry": {"_model_pretrained_cfgs": "()mindcv.compat:pretrained_cfgs"},
    "mindcv.optim": {"create_finetune_optimizer": "mindcv.compat:create_finetune_optimizer"},
    "mindcv.optim.optim_factory": {"create_finetune_optimizer": "mindcv.compat:create_finetune_optimizer"},
    "mindcv.version": {"__version__": "mindcv:__version__"},
}

# MindCV's module -> names that this library does not have -> what to use instead.
INSTEAD: dict[str, dict[str, str]] = {
    "mindcv.utils": {
        "AllReduceSum": "mindcv.engine.evaluate, which counts over all processes",
        "StateMonitor": "mindcv.engine.ProgressLog, Validation, Checkpoints and MetricsTable with create_trainer",
        "TrainStep": "mindcv.engine.TrainStep, which takes the network and the loss apart",
    },
    "mindcv.utils.callbacks": {
        "StateMonitor": "mindcv.engine.ProgressLog, Validation, Checkpoints and MetricsTable with create_trainer",
    },
    "mindcv.utils.train_step": {"TrainStep": "mindcv.engine.TrainStep, which takes the network and the loss apart"},
    "mindcv.utils.ema": {"EMA": "create_trainer(..., ema=True)"},
    "mindcv.utils.clip_grad": {"clip_grad_norm": "create_trainer(..., clip_grad=True, clip_value=...)"},
    "mindcv.utils.reduce_manager": {"AllReduceSum": "mindcv.engine.evaluate, which counts over all processes"},
    "mindcv.models.helpers": {
        "build_model_with_cfg": "mindcv.create_model",
        "load_pretrained": "mindcv.create_model(..., pretrained=True)",
        "make_divisible": "your own expression, because no model of this library rounds its widths",
    },
    "mindcv.models.layers.pooling": {"GlobalAvgPooling": "mindspore.ops.mean(x, (2, 3))"},
    "mindcv.models.convnext": {"ConvNextLayerNorm": "mindcv.models.layers.LayerNorm, for channels-last maps"},
    "mindcv.optim": {"create_pretrain_optimizer": "mindcv.create_optimizer"},
    "mindcv.optim.optim_factory": {"create_pretrain_optimizer": "mindcv.create_optimizer"},
}


def install() -> None:
    """Make the names of `ALIASES` importable. Existing modules keep the names that they have."""
    for name in {**ALIASES, **INSTEAD}:
        module = _existing(name)
        if module is None:
            module = sys.modules[name] = ModuleType(name, "Names of MindCV; see mindcv.compat.")
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, module)
        module.__dict__["__getattr__"] = _finder(name)


def _existing(name: str) -> Optional[ModuleType]:
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    return None


def _finder(module_name: str) -> Callable[[str], Any]:
    aliases, instead = ALIASES.get(module_name, {}), INSTEAD.get(module_name, {})

    def find(name: str) -> Any:
        if name in aliases:
            is_call = aliases[name].startswith("()")
            target, _, attribute = aliases[name].removeprefix("()").partition(":")
            found = getattr(importlib.import_module(target), attribute)
            return found() if is_call else found
        if name in instead:
            raise ImportError(f"{module_name}.{name} exists in MindCV but not in this library: use {instead[name]}")
        raise AttributeError(f"module '{module_name}' has no attribute '{name}'")

    return find


def set_seed(seed: int = 42, rank: Optional[int] = 0) -> None:
    """Seed the random numbers of Python, NumPy and MindSpore with `seed + rank`.

    The data sets, loaders and drop layers of this library do not depend on it, because they have their own `seed`.
    """
    number = seed + (rank or 0)
    random.seed(number)
    np.random.seed(number)
    ms.set_seed(number)


def set_logger(
    name: Optional[str] = None,
    output_dir: Optional[str] = None,
    rank: int = 0,
    log_level: int = logging.INFO,
    color: bool = True,
) -> logging.Logger:
    """Return a logger that writes to standard output on rank 0, and to `rank<N>.log` if `output_dir` is given.

    If the logger already has handlers, it is not changed. Lines are never coloured; `color` exists only so that
    MindCV's callers can pass it.
    """
    del color
    chosen = logging.getLogger(name)
    if chosen.handlers:
        return chosen
    chosen.setLevel(log_level)
    chosen.propagate = False
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)] if rank == 0 else []
    if output_dir is not None:
        os.makedirs(output_dir, exist_ok=True)
        handlers.append(logging.FileHandler(os.path.join(output_dir, f"rank{rank}.log"), encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s - %(message)s"))
        chosen.addHandler(handler)
    return chosen


def auto_mixed_precision(network: nn.Cell, amp_level: str = "O0", amp_cast_list: Optional[list] = None) -> nn.Cell:
    """Set the number format of `network` in place, as MindCV's callers expect, and return it.

    O2 and O3 without `amp_cast_list` call `network.to_float(float16)`. All other cases call `apply_amp`.
    """
    from mindcv.engine import apply_amp

    if amp_level in ("O2", "O3") and not amp_cast_list:
        return network.to_float(ms.float16)
    return apply_amp(network, amp_level, amp_cast_list or ())


def get_metrics(num_classes: int) -> dict[str, nn.Cell]:
    """Return MindSpore's metrics for `mindspore.Model`: top-1 accuracy, and top-5 from five classes on."""
    metrics = {"Top_1_Accuracy": ms.train.Top1CategoricalAccuracy()}
    if num_classes >= 5:
        metrics["Top_5_Accuracy"] = ms.train.Top5CategoricalAccuracy()
    return metrics


def require_customized_train_step(
    ema: bool = False,
    clip_grad: bool = False,
    gradient_accumulation_steps: int = 1,
    amp_cast_list: Optional[str] = None,
) -> bool:
    """Return whether `mindspore.Model` alone cannot train with these options. `create_trainer` accepts all of them."""
    return bool(ema or clip_grad or gradient_accumulation_steps > 1 or amp_cast_list)


def create_finetune_optimizer(
    model: nn.Cell, *arguments: Any, filter_bias_and_bn: bool = True, scale: float = 0.75, **keywords: Any
) -> nn.Optimizer:
    """Call `create_optimizer` with layer-wise learning-rate decay.

    Args:
        model: the network.
        *arguments: arguments of `create_optimizer`.
        filter_bias_and_bn: exclude biases and norms from weight decay.
        scale: factor of the learning rate per layer, see `layer_decay` of `create_optimizer`.
        **keywords: arguments of `create_optimizer`.
    """
    from mindcv.optim import create_optimizer

    decayed = "norm_and_bias" if filter_bias_and_bn else "disable"
    return create_optimizer(model, *arguments, weight_decay_filter=decayed, layer_decay=scale, **keywords)


def load_model_checkpoint(
    model: nn.Cell, checkpoint_path: str = "", ema: Optional[bool] = None, auto_mapping: bool = False
) -> None:
    """Load a checkpoint of any layout into `model`; see `mindcv.convert.load_weights`."""
    from mindcv.convert import load_weights

    del auto_mapping  # the layout is always detected
    load_weights(model, checkpoint_path, ema=ema)


def checkpoint_root() -> str:
    """Return the folder that holds downloaded weights."""
    from mindcv.utils.download import cache_root

    return str(cache_root() / "models")


def pretrained_cfgs() -> dict[str, dict[str, Any]]:
    """Return for each model the names of its first convolution and its head, and the URL of its default weights."""
    from mindcv.convert.layout_tables import own_names
    from mindcv.models import get_pretrained_cfg, is_model_pretrained, list_models

    parts = {"first_conv": "stem conv", "classifier": "head"}
    layers = {key: own_names(part)[0].rsplit(".", 1)[0] for key, part in parts.items()}
    return {
        name: {**(get_pretrained_cfg(name) if is_model_pretrained(name) else {"url": ""}), **layers}
        for name in list_models()
    }


def detect_file_type(filename: str) -> tuple[str, Optional[str], Optional[str]]:
    """Return suffix, archive type and compression type of a file name: `.tar.gz`, `.tar`, `.gz` for `x.tar.gz`.

    Raises:
        RuntimeError: the file name has no suffix.
    """
    suffixes = Path(filename).suffixes
    if not suffixes:
        raise RuntimeError(f"File `{filename}` has no suffix that tells its type.")
    last = suffixes[-1]
    short = {".tbz": ".bz2", ".tbz2": ".bz2", ".tgz": ".gz"}
    if last in short:
        return last, ".tar", short[last]
    if last in (".tar", ".zip"):
        return last, last, None
    archive = suffixes[-2] if len(suffixes) > 1 and suffixes[-2] in (".tar", ".zip") else None
    return (archive or "") + last, archive, last


class ValCallback(ms.Callback):
    """Logs the progress of `mindspore.Model.eval` every `log_interval` batches and after the last batch."""

    def __init__(self, log_interval: int = 100):
        super().__init__()
        self.log_interval = log_interval

    def on_eval_step_end(self, run_context: Any) -> None:
        """See `mindspore.Callback`."""
        from mindcv.utils.logger import logger

        parameters = run_context.original_args()
        if parameters.cur_step_num % self.log_interval == 0 or parameters.cur_step_num == parameters.batch_num:
            logger.info("batch %d of %d", parameters.cur_step_num, parameters.batch_num)


class CheckpointManager:
    """MindCV's checkpoint manager. The trainer of this library uses `mindcv.engine.CheckpointManager` instead.

    Args:
        ckpt_save_policy: None keeps all files, 'latest_k' keeps the newest files, and 'top_k' keeps the files with the
            highest metric.

    Raises:
        ValueError: the policy is unknown.
    """

    def __init__(self, ckpt_save_policy: Optional[str] = None):
        if ckpt_save_policy not in (None, "top_k", "latest_k"):
            raise ValueError(f"ckpt_save_policy must be None, 'top_k' or 'latest_k', not {ckpt_save_policy!r}")
        self.ckpt_save_policy = ckpt_save_policy
        self.ckpoint_filelist: list = []

    @property
    def ckpoint_num(self) -> int:
        """Number of files that are kept."""
        return len(self.ckpoint_filelist)

    def save_ckpoint(
        self, network: nn.Cell, num_ckpt: int = 10, metric: Union[float, ms.Tensor, None] = None, save_path: str = ""
    ) -> Optional[list]:
        """Save `network` to `save_path`, and remove the files that the policy does not keep.

        Args:
            network: the network.
            num_ckpt: number of files that the policy keeps.
            metric: metric of the network, where higher is better; 'top_k' needs it.
            save_path: path of the file.

        Returns:
            The kept files: pairs (path, metric), best first, for 'top_k'; paths for 'latest_k'; None without a policy.

        Raises:
            ValueError: the policy is 'top_k' and there is no metric.
        """
        from mindcv.convert import write_ckpt

        if self.ckpt_save_policy == "top_k" and metric is None:
            raise ValueError("ckpt_save_policy 'top_k' needs a metric")
        write_ckpt(save_path, {parameter.name: parameter for parameter in network.get_parameters()}, {})
        if self.ckpt_save_policy is None:
            return None
        if self.ckpt_save_policy == "top_k":
            value = float(metric.asnumpy() if isinstance(metric, ms.Tensor) else metric)
            self.ckpoint_filelist = sorted([*self.ckpoint_filelist, (save_path, value)], key=lambda kept: -kept[1])
            removed = [path for path, _ in self.ckpoint_filelist[num_ckpt:]]
            self.ckpoint_filelist = self.ckpoint_filelist[:num_ckpt]
        else:
            self.ckpoint_filelist.append(save_path)
            removed = self.ckpoint_filelist[:-num_ckpt]
            self.ckpoint_filelist = self.ckpoint_filelist[-num_ckpt:]
        for path in removed:
            Path(path).unlink(missing_ok=True)
        return self.ckpoint_filelist
