"""Exports networks to MindIR and ONNX files, and runs such files."""

from mindcv.export.exported_classifier import ExportedClassifier
from mindcv.export.exported_file import EXPORT_SUFFIXES, ExportedFile, files_of_exported, is_exported, open_exported
from mindcv.export.metadata import EXPORT_FORMATS, ExportMetadata
from mindcv.export.mindir_file import check_air, write_mindir
from mindcv.export.onnx_file import write_onnx
from mindcv.export.onnx_package import require_onnx, require_onnxruntime

__all__ = [
    "EXPORT_FORMATS",
    "EXPORT_SUFFIXES",
    "ExportMetadata",
    "ExportedClassifier",
    "ExportedFile",
    "check_air",
    "files_of_exported",
    "is_exported",
    "open_exported",
    "require_onnx",
    "require_onnxruntime",
    "write_mindir",
    "write_onnx",
]
