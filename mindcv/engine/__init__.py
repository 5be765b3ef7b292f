"""Training and evaluation."""

from mindcv.engine.amp import apply_amp
from mindcv.engine.callbacks import (
    Callback,
    Checkpoints,
    EarlyStopping,
    ProgressLog,
    RemovalOfEarlierRun,
    Snapshots,
    Validation,
)
from mindcv.engine.checkpoint import CheckpointManager
from mindcv.engine.compile_cache import CompileCache
from mindcv.engine.compiling import say_compiling
from mindcv.engine.distillation import DistillationLoss, DistillationNetwork
from mindcv.engine.evaluate import Evaluation, evaluate, predict
from mindcv.engine.event_file import EventFile
from mindcv.engine.interruption import Interruption
from mindcv.engine.metrics_table import MetricsTable
from mindcv.engine.resumable_run import ResumableRun, weights_to_save
from mindcv.engine.run_folder import remove_runs
from mindcv.engine.run_record import RunRecord, describe_start
from mindcv.engine.snapshot import SnapshotWriter
from mindcv.engine.train_step import AccumulatedStep, TrainStep
from mindcv.engine.trainer import Trainer, create_trainer, images_left_out, steps_per_epoch

__all__ = [
    "AccumulatedStep",
    "Callback",
    "CheckpointManager",
    "Checkpoints",
    "CompileCache",
    "DistillationLoss",
    "DistillationNetwork",
    "EarlyStopping",
    "Evaluation",
    "EventFile",
    "Interruption",
    "MetricsTable",
    "ProgressLog",
    "RemovalOfEarlierRun",
    "ResumableRun",
    "RunRecord",
    "Snapshots",
    "SnapshotWriter",
    "TrainStep",
    "Trainer",
    "Validation",
    "apply_amp",
    "create_trainer",
    "describe_start",
    "evaluate",
    "images_left_out",
    "predict",
    "remove_runs",
    "say_compiling",
    "steps_per_epoch",
    "weights_to_save",
]
