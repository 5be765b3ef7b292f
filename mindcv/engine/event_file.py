"""TensorBoard's event file, with the curves of `metrics.csv`. It needs the extra `tensorboard`.

Decision 0085 says why a resumed run writes a new file, and why the file is not named by TensorBoard.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional, Union

from mindcv.engine.callbacks import Callback
from mindcv.engine.metrics_table import MetricsTable
from mindcv.engine.progress import RunProgress
from mindcv.engine.run_folder import EVENT_FILES
from mindcv.utils.extras import import_extra
from mindcv.utils.files import atomic_path

__all__ = ["EventFile", "require_tensorboard"]

_CURVES = tuple(name for name in MetricsTable.columns if name not in ("epoch", "step"))


class _TensorBoard(NamedTuple):
    """The three names of the package tensorboard that write an event file."""

    Event: Any
    SessionLog: Any
    RecordWriter: Any


def require_tensorboard() -> _TensorBoard:
    """Import what writes event files. TensorFlow is not needed.

    Raises:
        UserError: tensorboard is not installed; names the extra.
    """
    needed = ("tensorboard", "event files need TensorBoard", ", or leave tensorboard off")
    protocol = import_extra("tensorboard.compat.proto.event_pb2", *needed)
    writer = import_extra("tensorboard.summary.writer.record_writer", *needed)
    return _TensorBoard(protocol.Event, protocol.SessionLog, writer.RecordWriter)


class EventFile(Callback):
    """Writes each column of a table of metrics as a curve for TensorBoard; the steps are those of the column `step`.

    When a run begins or is resumed, a new file is written from the rows of the table, and the files of earlier
    processes are emptied. So no step appears twice.

    Args:
        folder: folder of the run, which must exist.
        table: the table, which comes before this callback.

    Raises:
        UserError: tensorboard is not installed.
    """

    def __init__(self, folder: Union[str, os.PathLike], table: MetricsTable):
        self.folder = Path(folder)
        self.table = table
        self.times: list[float] = []  # of the rows, in seconds since 1970
        self._board = require_tensorboard()
        self._file: Optional[IO[bytes]] = None

    def on_train_begin(self, progress: RunProgress) -> None:
        """Write the rows of a resumed run at once, so that TensorBoard shows them before the next epoch ends."""
        if self.table.is_resumed:
            self._begin()

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Append the metrics of the epoch."""
        self.times.append(time.time())
        if self._file is None:
            self._begin()
            return
        writer = self._board.RecordWriter(self._file)
        self._write_row(writer, len(self.table.rows) - 1)
        writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def saved(self) -> dict[str, Any]:
        """Return the times of the rows."""
        return {"times": list(self.times)}

    def restore(self, saved: dict[str, Any]) -> None:
        """See `Callback.restore`."""
        self.times = list(saved["times"])

    def _begin(self) -> None:
        """Write all rows to a new file, empty the others, and leave the file open at its end."""
        now = time.time()
        # Rows from before event files were on have no time.
        self.times = [*[now] * (len(self.table.rows) - len(self.times)), *self.times]
        path = self.folder / EVENT_FILES.replace("*", str(time.time_ns()))
        with atomic_path(path) as side, open(side, "wb") as file:
            writer = self._board.RecordWriter(file)
            board = self._board
            writer.write(board.Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            # It tells a TensorBoard that is running to forget the steps that it read from an earlier file.
            restart = board.SessionLog(status=board.SessionLog.START)
            writer.write(board.Event(wall_time=now, step=0, session_log=restart).SerializeToString())
            for number in range(len(self.table.rows)):
                self._write_row(writer, number)
        for old in set(self.folder.glob(EVENT_FILES)) - {path}:
            if old.stat().st_size:
                # A TensorBoard that is running would stop to read the folder if the file that it reads disappeared.
                os.truncate(old, 0)
            else:  # from an earlier resume
                old.unlink()
        self._file = open(path, "ab")  # noqa: SIM115  (`close` closes it)

    def _write_row(self, writer: Any, number: int) -> None:
        row = self.table.rows[number]
        event = self._board.Event(wall_time=self.times[number], step=row["step"])
        for name in _CURVES:
            value = row.get(name, "")
            if value != "":
                event.summary.value.add(tag=name, simple_value=value)
        writer.write(event.SerializeToString())
