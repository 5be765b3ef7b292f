"""Writes `run.json` as a run does."""

from mindcv.engine import RunRecord


def write_start(folder, facts, progress):
    """Add an entry for a process that begins at `progress`."""
    record = RunRecord(folder, facts)
    record.on_train_begin(progress)
    record.on_step_end(progress)
