"""Imports the packages of the extra `onnx`, which only the export needs."""

from __future__ import annotations

from types import ModuleType

from mindcv.utils.extras import import_extra

__all__ = ["require_onnx", "require_onnxruntime"]


def require_onnx() -> ModuleType:
    """Import and return the package onnx, which writes ONNX files.

    Raises:
        UserError: it is not installed; names the extra.
    """
    return import_extra("onnx", "onnx", "writing ONNX files needs the package onnx")


def require_onnxruntime() -> ModuleType:
    """Import and return the package onnxruntime, which runs ONNX files.

    Raises:
        UserError: it is not installed; names the extra.
    """
    return import_extra("onnxruntime", "onnx", "running ONNX files needs the package onnxruntime")
