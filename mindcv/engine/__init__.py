"""Training and evaluation."""

from mindcv.engine.amp import apply_amp
from mindcv.engine.callbacks import Callback, Checkpoints, EarlyStopping, MetricsTable, Progress, Validation
from mindcv.engine.checkpoint import CheckpointManager
from mindcv.engine.distillation import DistillationLoss, DistillationNetwork
from mindcv.engine.evaluate import Evaluation, evaluate, predict
from mindcv.engine.trainer import Trainer, create_trainer

__all__ = [
    "Callback",
    "CheckpointManager",
    "Checkpoints",
    "DistillationLoss",
    "DistillationNetwork",
    "EarlyStopping",
    "Evaluation",
    "MetricsTable",
    "Progress",
    "Trainer",
    "Validation",
    "apply_amp",
    "create_trainer",
    "evaluate",
    "predict",
]
