"""Reads checkpoints of every known format and layout, and writes them, under this library's parameter names."""

from mindcv.convert.backbone import backbone_name, is_pretraining_name, open_backbone, pretraining_name
from mindcv.convert.checkpoint_file import CheckpointContents, open_checkpoint, read_checkpoint
from mindcv.convert.checkpoint_list import find_checkpoint_files
from mindcv.convert.ckpt_file import read_ckpt, write_ckpt
from mindcv.convert.layouts import from_mindcv, to_mindcv, weight_parameters
from mindcv.convert.load import fill_weights, load_weights
from mindcv.convert.safetensors_file import read_safetensors, write_safetensors

__all__ = [
    "CheckpointContents",
    "backbone_name",
    "fill_weights",
    "find_checkpoint_files",
    "from_mindcv",
    "is_pretraining_name",
    "load_weights",
    "open_backbone",
    "open_checkpoint",
    "pretraining_name",
    "read_checkpoint",
    "read_ckpt",
    "read_safetensors",
    "to_mindcv",
    "weight_parameters",
    "write_ckpt",
    "write_safetensors",
]
