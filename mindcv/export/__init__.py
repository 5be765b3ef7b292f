"""Exports networks to MindIR and ONNX files, and runs such files."""

from mindcv.export.metadata import ExportMetadata
from mindcv.export.onnx_file import write_onnx

__all__ = ["ExportMetadata", "write_onnx"]
