"""Opens exported files and runs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Union

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv.export.metadata import ExportMetadata
from mindcv.export.mindir_file import metadata_path
from mindcv.export.onnx_file import INPUT_NAME
from mindcv.export.onnx_package import require_onnxruntime
from mindcv.utils.device import mindspore_log_disabled
from mindcv.utils.errors import UserError

__all__ = ["EXPORT_SUFFIXES", "ExportedFile", "open_exported"]


class ExportedFile:
    """An exported network, which maps images to arrays.

    Attributes:
        path: the file.
        metadata: what the file says about itself (see `ExportMetadata`).
    """

    def __init__(self, path: Path, metadata: ExportMetadata):
        self.path, self.metadata = path, metadata

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images: one array, or one for each feature map.

        Args:
            images: float32 [N, C, H, W], or uint8 [N, H, W, 3] if `metadata.takes_pixels`. A file that takes one image
                computes them one after the other.

        Raises:
            UserError: the images have a wrong type or shape.
        """
        expected = ("uint8", "[N, H, W, 3]") if self.metadata.takes_pixels else ("float32", "[N, C, H, W]")
        if images.ndim != 4 or len(images) == 0 or images.dtype != expected[0]:
            raise UserError(
                f"'{self.path}' takes images {' '.join(expected)}, and got an array {images.dtype} {list(images.shape)}"
            )
        parts = [images] if self.metadata.dynamic_batch else np.split(images, len(images))
        try:
            outputs = [self._run(part) for part in parts]
        except Exception as error:  # the runtimes raise classes of their own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"'{self.path}' cannot compute images of shape {list(images.shape)}: {reason[0]}"
            ) from error
        return [np.concatenate(arrays) for arrays in zip(*outputs)]

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images that the runtime takes at once."""
        raise NotImplementedError


class _OnnxFile(ExportedFile):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path):
        onnxruntime = require_onnxruntime()
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception:  # onnxruntime raises several kinds
            raise UserError(_damaged(path)) from None
        super().__init__(path, ExportMetadata.from_texts(self._session.get_modelmeta().custom_metadata_map, str(path)))

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, {INPUT_NAME: images})


class _MindIRFile(ExportedFile):
    """A MindIR file in MindSpore."""

    def __init__(self, path: Path):
        beside = metadata_path(path)
        try:
            metadata = ExportMetadata.from_json(beside.read_bytes(), str(beside))
        except OSError as error:
            raise UserError(
                f"'{beside}', which holds the metadata of '{path}', cannot be read: {error.strerror}; tools/export.py "
                "writes both files, so copy both"
            ) from None
        try:
            with mindspore_log_disabled():
                self._graph = nn.GraphCell(ms.load(str(path)))
        except Exception:  # MindSpore raises several kinds for a damaged file
            raise UserError(_damaged(path)) from None
        super().__init__(path, metadata)

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        outputs = self._graph(ms.Tensor(images))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


_KINDS = {".onnx": _OnnxFile, ".mindir": _MindIRFile}

EXPORT_SUFFIXES = tuple(_KINDS)  # ends of the names of the files that can be opened


def open_exported(path: Union[str, os.PathLike]) -> ExportedFile:
    """Open a file that `write_onnx` or `write_mindir` has written, to run it on a CPU.

    Args:
        path: the file; the end of its name tells the format. Files that were written beside it must still be there.

    Raises:
        UserError: the file does not exist, is damaged, comes from other software, or needs a package that is missing.
    """
    path = Path(path)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"'{path}' is no exported file: its name must end in {' or '.join(_KINDS)}")
    if not path.is_file():
        raise UserError(f"exported file '{path}' does not exist")
    return kind(path)


def _damaged(path: Path) -> str:
    return f"'{path}' cannot be read: it is damaged, or files that were written beside it are missing; export it again"
