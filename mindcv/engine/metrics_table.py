"""The callback that writes the table of metrics and draws the learning curve."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindcv.engine.callbacks import Callback
from mindcv.engine.plots import draw_learning_curve, require_matplotlib
from mindcv.engine.progress import RunProgress
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_write_text
from mindcv.utils.logger import logger

__all__ = ["MetricsTable"]


class MetricsTable(Callback):
    """`metrics.csv`, a row an epoch, and `learning_curve.png`, in `folder`.

    The table has those of `columns` that an epoch so far has a value for: without validation, none of validation.
    The table of an earlier run in the same folder is kept as `metrics.1.csv`, `metrics.2.csv`, ...
    """

    columns = ("epoch", "step", "lr", "train_loss", "val_loss", "top_1", "top_5", "images_per_s", "seconds")

    def __init__(self, folder: Path):
        self.path = Path(folder) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.can_draw = True
        self.is_resumed = False

    def on_train_begin(self, progress: RunProgress) -> None:
        """Warn if the curve cannot be drawn. The table of a resumed run is cut to the rows of its snapshot."""
        try:
            require_matplotlib()
        except UserError as error:
            self.can_draw = False
            logger.warning("learning_curve.png will not be drawn: %s", error)
        if self.is_resumed:
            self._write()

    def _keep_earlier_table(self) -> None:
        """Rename the table of an earlier run, if the folder holds one."""
        if not self.path.exists():
            return
        number = 1
        while (kept := self.path.with_name(f"metrics.{number}.csv")).exists():
            number += 1
        self.path.rename(kept)
        logger.info("the table of an earlier run is kept as %s", kept)

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Append the row of the epoch."""
        if not self.rows and not self.is_resumed:
            self._keep_earlier_table()
        row = {
            "epoch": progress.epoch,
            "step": progress.global_step,
            "lr": progress.lr,
            "train_loss": progress.train_loss,
            "images_per_s": "" if math.isnan(progress.images_per_s) else round(progress.images_per_s, 2),
            "seconds": round(progress.train_seconds, 3),
        }
        self.rows.append({**row, **progress.metrics})
        self._write()

    def saved(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": list(self.rows)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See `Callback.restore`."""
        self.rows, self.is_resumed = list(saved["rows"]), True

    def _write(self) -> None:
        columns = [name for name in self.columns if not self.rows or any(name in row for row in self.rows)]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write_text(self.path, text.getvalue())

    def on_train_end(self, progress: RunProgress) -> None:
        """Draw the learning curve."""
        if self.can_draw and self.rows:
            draw_learning_curve(self.rows, self.path.with_name("learning_curve.png"))
