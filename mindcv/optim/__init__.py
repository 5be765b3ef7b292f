"""Optimizers, their weight-decay and layer-decay groups, learning-rate tables and frozen parameters."""

from mindcv.optim.adam import Adam, NAdam
from mindcv.optim.adamw import AdamW
from mindcv.optim.adan import Adan
from mindcv.optim.base import GroupOptimizer
from mindcv.optim.freeze import freeze
from mindcv.optim.from_mindspore import SGD, Adagrad, Momentum
from mindcv.optim.lamb import Lamb
from mindcv.optim.lion import Lion
from mindcv.optim.lr_table import LearningRateTable
from mindcv.optim.optim_factory import create_optimizer
from mindcv.optim.param_groups import (
    describe_groups,
    filter_groups,
    is_decayed,
    layer_decay_groups,
    layer_ids,
    weight_decay_groups,
)
from mindcv.optim.rmsprop import RMSProp

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adan",
    "GroupOptimizer",
    "Lamb",
    "LearningRateTable",
    "Lion",
    "Momentum",
    "NAdam",
    "RMSProp",
    "create_optimizer",
    "describe_groups",
    "filter_groups",
    "freeze",
    "is_decayed",
    "layer_decay_groups",
    "layer_ids",
    "weight_decay_groups",
]
