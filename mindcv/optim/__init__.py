"""Optimizers by name, and which parameters they decay."""

from mindcv.optim.adamw import AdamW
from mindcv.optim.lr_table import LearningRateTable
from mindcv.optim.optim_factory import create_optimizer
from mindcv.optim.param_groups import is_decayed, weight_decay_groups

__all__ = ["AdamW", "LearningRateTable", "create_optimizer", "is_decayed", "weight_decay_groups"]
