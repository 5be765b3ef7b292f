"""Checkpoints of other layouts, and this library's own, under this library's names."""

from mindcv.convert.ckpt_file import read_ckpt, write_ckpt
from mindcv.convert.layouts import to_mindcv, weight_parameters
from mindcv.convert.load import load_weights

__all__ = ["load_weights", "read_ckpt", "to_mindcv", "weight_parameters", "write_ckpt"]
