"""Which checkpoints a run keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

from mindspore import nn

from mindcv.convert import weight_parameters, write_ckpt
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["CHECKPOINT_POLICIES", "CheckpointManager"]

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
        self.best_score: Optional[float] = None
        self._kept: list[tuple[Optional[float], Path]] = []

    def save(
        self, network: nn.Cell, metadata: Mapping[str, Any], epoch: int, step: int, score: Optional[float] = None
    ) -> Path:
        """Write the weights of `network` and return the file's path.

        Args:
            network: its weights are written, in float32, under MindCV's names.
            metadata: what `read_ckpt` gives back; JSON values.
            epoch: epochs done.
            step: steps done in the last of them.
            score: the higher the better; needed by 'top_k'. The best so far is also in `<model>_best.ckpt`.
        """
        if self.policy == "top_k" and score is None:
            raise UserError(
                "ckpt_save_policy top_k ranks by validation: it needs val_while_train and a validated epoch"
            )
        weights = weight_parameters(network)
        path = self.folder / f"{self.model_name}-{epoch}_{step}.ckpt"
        write_ckpt(path, weights, metadata)
        if score is not None and (self.best_score is None or score > self.best_score):
            self.best_score = score
            write_ckpt(self.folder / f"{self.model_name}_best.ckpt", weights, metadata)
        self._kept.append((score, path))
        if len(self._kept) > self.keep_max:
            worst = 0 if self.policy == "latest_k" else min(range(len(self._kept)), key=lambda i: self._kept[i][0])
            self._kept.pop(worst)[1].unlink(missing_ok=True)
        return path
