"""Which checkpoints a run keeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mindspore import Parameter

from mindcv.convert import write_ckpt
from mindcv.utils.errors import UserError, unknown_name
from mindcv.utils.files import atomic_path
from mindcv.utils.logger import logger

__all__ = ["CHECKPOINT_POLICIES", "CheckpointManager", "require_finite"]

CHECKPOINT_POLICIES = ("latest_k", "top_k")


class CheckpointManager:
    """Writes `<model>-<epoch>_<step>.ckpt` and removes those of this run that its policy no longer wants.

    Args:
        folder: where to; must exist.
        model_name: first part of the file names.
        policy: 'latest_k' keeps the newest `keep_max` files, 'top_k' those with the highest score, the newer of equals.
        keep_max: how many, at least 1.

    A file is whole or not there (`write_ckpt`), and one is removed only after the next is on disk.
    """

    def __init__(self, folder: Union[str, os.PathLike], model_name: str, policy: str = "latest_k", keep_max: int = 10):
        if policy not in CHECKPOINT_POLICIES:
            raise UserError(unknown_name("ckpt_save_policy", policy, CHECKPOINT_POLICIES))
        if keep_max < 1:
            raise UserError(f"keep_checkpoint_max must be at least 1, not {keep_max}")
        self.folder = Path(folder)
        self.model_name = model_name
        self.policy = policy
        self.keep_max = keep_max
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
        """Write `weights` and return the file's path.

        Args:
            weights: by name; averages of them may be there too, as `ema.<name>`, as in MindCV's files.
            metadata: what `read_ckpt` gives back; JSON values.
            epoch: epochs done.
            step: steps done in the last of them.
            score: see `save_best`, which this calls; needed by 'top_k'.

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
        """Write `<model>_best.ckpt` if `score` is above all before it; the arguments are those of `save`.

        Args:
            score: the higher the better; None for an epoch that was not validated.
        """
        if score is None or (self.best_score is not None and score <= self.best_score):
            return
        require_finite(weights)
        write_ckpt(self.best_path, weights, metadata)
        self.best_score, self.best_epoch = score, epoch

    def saved(self) -> dict[str, Any]:
        """What `restore` takes, as JSON values."""
        kept = [[score, path.name] for score, path in self._kept]
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "kept": kept}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on with the best score of an interrupted run, and with those of its files that are in the folder."""
        # Earlier versions did not save the epoch.
        self.best_score, self.best_epoch = saved["best_score"], saved.get("best_epoch")
        kept = [(score, self.folder / name) for score, name in saved["kept"]]
        self._kept = [(score, path) for score, path in kept if path.exists()]

    def take_best_from(self, folder: Union[str, os.PathLike]) -> None:
        """Copy the best checkpoint of a restored run from the folder that the run was in, if that is another.

        If it is gone, the next epoch that is validated becomes the best.

        Raises:
            UserError: it cannot be written.
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
    """Refuse to save weights that hold NaN or infinity: they would take the place of the last good ones.

    A gradient can overflow where the loss does not, and the loss then shows it one step later.

    Raises:
        UserError: names the first.
    """
    for name, weight in weights.items():
        if not np.isfinite(weight.asnumpy()).all():
            raise UserError(
                f"weight {name} holds NaN or infinity: training stops, and this is not saved; a lower lr, clip_grad, "
                "drop_overflow_update or another loss_scale may help"
            )
