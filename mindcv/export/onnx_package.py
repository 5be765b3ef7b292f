"""Imports the packages of the extra `onnx`, which only the export needs."""

from __future__ import annotations

from types import ModuleType

from mindcv.utils.errors import UserError

__all__ = ["require_onnx", "require_onnxruntime"]


def require_onnx() -> ModuleType:
    """Import and return the package onnx, which writes ONNX files.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        import onnx
    except ImportError:
        raise UserError('writing ONNX files needs the package onnx: pip install "mindcv[onnx]"') from None
    return onnx


def require_onnxruntime() -> ModuleType:
    """Import and return the package onnxruntime, which runs ONNX files.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError('running ONNX files needs the package onnxruntime: pip install "mindcv[onnx]"') from None
    return onnxruntime
