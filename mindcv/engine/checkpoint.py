"""The checkpoints of a run: writing them, and removing those that the policy does not keep."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mindspore import Parameter

from mindcv.convert import write_ckpt
from mindcv.utils.checks import check_int, check_name, check_path, check_text
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_path
from mindcv.utils.logger import logger

__all__ = ["CHECKPOINT_POLICIES", "CheckpointManager", "require_finite"]

CHECKPOINT_POLICIES = ("latest_k", "top_k")


class CheckpointManager:
    """Writes `<model>-<epoch>_<step>.ckpt`, and removes files of this run that its policy does not keep.

    Args:
        folder: folder of the files, which must exist.
        model_name: first part of the file names.
        policy: 'latest_k' keeps the newest `keep_max` files. 'top_k' keeps the files with the highest scores, and
            the newer one of two files with equal scores.
        keep_max: largest number of files, at least 1.

    `write_ckpt` writes a file whole or not at all. A file is removed only after the next one is on disk.
    """

    def __init__(self, folder: Union[str, os.PathLike], model_name: str, policy: str = "latest_k", keep_max: int = 10):
        self.folder = Path(check_path("folder", folder))
        self.model_name = check_text("model_name", model_name)
        self.policy = check_name("policy", policy, CHECKPOINT_POLICIES)
        self.keep_max = check_int("keep_max", keep_max, 1)
        self.best_path = self.folder / f"{model_name}_best.ckpt"
        self.best_score: Optional[float] = None
        self.best_epoch: Optional[int] = None
        self._kept: list[tuple[Optional[float], Path]] = []

    def save(
        self,
        weights: Mapping[str, Parameter],
        metadata: Mapping[str, Any],
        epoch: int,
        step: int,
        score: Optional[float] = None,
    ) -> Path:
        """Write `weights` to a file and return its path.

        Args:
            weights: parameters by name; their averages are named `ema.<name>`, as in MindCV's files.
            metadata: JSON values, which `read_ckpt` returns with the weights.
            epoch: number of epochs done.
            step: number of steps done in the last epoch.
            score: score for `save_best`, which this method calls; the policy 'top_k' needs it.

        Raises:
            UserError: there is no score, a weight is not finite, or the disk is full.
        """
        require_finite(weights)
        if self.policy == "top_k" and score is None:
            raise UserError(
                "ckpt_save_policy top_k ranks by validation: it needs val_while_train and a validated epoch"
            )
        path = self.folder / f"{self.model_name}-{epoch}_{step}.ckpt"
        write_ckpt(path, weights, metadata)
        self.save_best(weights, metadata, epoch, score)
        # A resumed run may write a file again.
        self._kept = [(other_score, other) for other_score, other in self._kept if other != path] + [(score, path)]
        if len(self._kept) > self.keep_max:
            worst = 0 if self.policy == "latest_k" else min(range(len(self._kept)), key=lambda i: self._kept[i][0])
            self._kept.pop(worst)[1].unlink(missing_ok=True)
        return path

    def save_best(
        self, weights: Mapping[str, Parameter], metadata: Mapping[str, Any], epoch: int, score: Optional[float]
    ) -> None:
        """Write `<model>_best.ckpt` if `score` is higher than all scores before; arguments as in `save`.

        Args:
            score: metric of the epoch, where higher is better; None for an epoch that was not validated.
        """
        if score is None or (self.best_score is not None and score <= self.best_score):
            return
        require_finite(weights)
        write_ckpt(self.best_path, weights, metadata)
        self.best_score, self.best_epoch = score, epoch

    def saved(self) -> dict[str, Any]:
        """Return the state that `restore` takes, as JSON values."""
        kept = [[score, path.name] for score, path in self._kept]
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "kept": kept}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue with the best score of an interrupted run, and with its files that are in the folder."""
        # Earlier versions did not save the epoch.
        self.best_score, self.best_epoch = saved["best_score"], saved.get("best_epoch")
        kept = [(score, self.folder / name) for score, name in saved["kept"]]
        self._kept = [(score, path) for score, path in kept if path.exists()]

    def take_best_from(self, folder: Union[str, os.PathLike]) -> None:
        """Copy the best checkpoint of a restored run from its earlier folder, if that is another folder.

        If the file is missing, the next validated epoch becomes the best one.

        Raises:
            UserError: the copy cannot be written.
        """
        source = Path(folder) / self.best_path.name
        if self.best_score is None or (source.exists() and source.resolve() == self.best_path.resolve()):
            return
        if source.exists():
            with atomic_path(self.best_path) as side:
                shutil.copyfile(source, side)
            return
        logger.warning("'%s', the best checkpoint of the resumed run, is gone: the best is chosen anew", source)
        self.best_score = self.best_epoch = None


def require_finite(weights: Mapping[str, Parameter]) -> None:
    """Refuse to save weights that are not finite, because they would replace the last good weights.

    A gradient can overflow while the loss is finite. The loss shows it one step later.

    Raises:
        UserError: a weight is not finite; the message names the first one.
    """
    for name, weight in weights.items():
        if not np.isfinite(weight.asnumpy()).all():
            raise UserError(
                f"weight {name} holds NaN or infinity: training stops, and this is not saved; a lower lr, clip_grad, "
                "drop_overflow_update or another loss_scale may help"
            )
