"""Opens exported files and runs them."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Optional, Union

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv.export.foreign_onnx import foreign_input, has_own_metadata, output_kind_of
from mindcv.export.metadata import ExportMetadata
from mindcv.export.mindir_file import metadata_path, variables_folder
from mindcv.export.onnx_package import require_onnxruntime
from mindcv.utils.device import mindspore_log_disabled, native_warnings_hidden
from mindcv.utils.errors import UserError
from mindcv.utils.logger import counted

__all__ = ["EXPORT_SUFFIXES", "ExportedFile", "files_of_exported", "is_exported", "open_exported"]


class ExportedFile:
    """An exported network, which maps images to arrays.

    Attributes:
        path: the file.
        metadata: what the file says about itself (see `ExportMetadata`).
        batch_size: how many images the file takes at once; None means any number.
        image_size: height and width of the images that the file takes; None means any size.
        num_outputs: number of outputs for an image, if the file tells it without a computation.
    """

    def __init__(
        self,
        path: Path,
        metadata: ExportMetadata,
        batch_size: Optional[int] = None,
        image_size: Optional[int] = None,
        num_outputs: Optional[int] = None,
    ):
        self.path, self.metadata, self.batch_size, self.image_size = path, metadata, batch_size, image_size
        self.num_outputs = num_outputs

    @property
    def fixed_options(self) -> tuple[str, ...]:
        """The options of the preprocessing that the file decides, so that its user cannot choose another value."""
        if self.metadata.takes_pixels:
            return tuple(self.metadata.preprocessing)
        return ("in_channels",) if self.image_size is None else ("in_channels", "image_resize")

    def count_classes(self) -> int:
        """Return the number of classes of a classifier. It computes an image if the file does not tell the number."""
        return len(self.metadata.class_names) or self.num_outputs or self(self.blank_image())[0].shape[1]

    def blank_image(self) -> np.ndarray:
        """Return a batch of one black image that the file takes."""
        preprocessing = self.metadata.preprocessing
        side = preprocessing.get("image_resize", 224)
        if self.metadata.takes_pixels:
            return np.zeros((1, side, side, 3), np.uint8)
        return np.zeros((1, preprocessing.get("in_channels", 3), side, side), np.float32)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images: one array, or one for each feature map.

        Args:
            images: float32 [N, C, H, W], or uint8 [N, H, W, 3] if `metadata.takes_pixels`. A file with a fixed
                `batch_size` computes them in batches of this size, the last of which is filled up with zeros.

        Raises:
            UserError: the images have a wrong type or shape, or the file does not return one row for each image.
        """
        self._check(images)
        try:
            outputs = [self._run(part) for part in self._batches(images)]
        except Exception as error:  # the runtimes raise classes of their own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            hint = f"; its metadata says image_resize {self.image_size}, which may be wrong" if self.image_size else ""
            raise UserError(
                f"'{self.path}' cannot compute images of shape {list(images.shape)}{hint}: {reason[0]}"
            ) from error
        for part, arrays in zip(self._batches(images), outputs):
            self._check_rows(len(part), arrays)
        return [np.concatenate(arrays)[: len(images)] for arrays in zip(*outputs)]

    def _check(self, images: np.ndarray) -> None:
        if self.metadata.takes_pixels:
            dtype, shape = "uint8", ("N", "H", "W", 3)
        else:
            channels = self.metadata.preprocessing.get("in_channels", "C")
            dtype, shape = "float32", ("N", channels, self.image_size or "H", self.image_size or "W")
        fits = images.ndim == 4 and all(isinstance(size, str) or size == got for size, got in zip(shape, images.shape))
        if not fits or len(images) == 0 or images.dtype != dtype:
            raise UserError(
                f"'{self.path}' takes images {dtype} [{', '.join(map(str, shape))}], and got an array {images.dtype} "
                f"{list(images.shape)}"
            )

    def _check_rows(self, num_images: int, arrays: list[np.ndarray]) -> None:
        for array in arrays:
            if array.ndim == 0 or len(array) != num_images:
                found = "no row" if array.ndim == 0 else counted(len(array), "row")
                raise UserError(
                    f"'{self.path}' returned {found} for {counted(num_images, 'image')}, and one row for each image is "
                    "expected: export the network again so that it computes each image of a batch on its own"
                )

    def _batches(self, images: np.ndarray) -> list[np.ndarray]:
        if self.batch_size is None:
            return [images]
        num_missing = -len(images) % self.batch_size
        if num_missing:
            images = np.concatenate([images, np.zeros((num_missing, *images.shape[1:]), images.dtype)])
        return np.split(images, len(images) // self.batch_size)

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images that the runtime takes at once."""
        raise NotImplementedError


class _OnnxFile(ExportedFile):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path, is_foreign_allowed: bool):
        onnxruntime = require_onnxruntime()
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception:  # onnxruntime raises several kinds
            raise UserError(_damaged(path)) from None
        texts = self._session.get_modelmeta().custom_metadata_map
        is_foreign = is_foreign_allowed and not has_own_metadata(texts)
        if is_foreign:
            metadata, batch_size = foreign_input(self._session, path)
            image_size = metadata.preprocessing.get("image_resize")
        else:
            metadata, image_size = ExportMetadata.from_texts(texts, str(path)), None
            batch_size = None if metadata.dynamic_batch else 1
            inputs = self._session.get_inputs()
            if len(inputs) != 1 or len(inputs[0].shape) != 4:
                raise UserError(_damaged(path))
        given = self._session.get_inputs()[0]
        if not is_foreign:  # A file that `write_onnx` wrote earlier may not name its number of channels.
            channels = 3 if metadata.takes_pixels else given.shape[1]
            metadata = replace(metadata, preprocessing={"in_channels": channels, **metadata.preprocessing})
        self._input_name = given.name
        shape = self._session.get_outputs()[0].shape
        num_outputs = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
        super().__init__(path, metadata, batch_size, image_size, num_outputs)
        if is_foreign:
            self.metadata = replace(self.metadata, output=output_kind_of(self(self.blank_image())[0]))

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, {self._input_name: images})


class _MindIRFile(ExportedFile):
    """A MindIR file in MindSpore."""

    def __init__(self, path: Path, is_foreign_allowed: bool):
        beside = metadata_path(path)
        try:
            metadata = ExportMetadata.from_json(beside.read_bytes(), str(beside))
        except OSError as error:
            raise UserError(
                f"'{beside}', which holds the metadata of '{path}', cannot be read: {error.strerror}; tools/export.py "
                "writes both files, so copy both"
            ) from None
        try:
            with mindspore_log_disabled(), native_warnings_hidden(with_errors=True):
                self._graph = nn.GraphCell(ms.load(str(path)))
        except Exception:  # MindSpore raises several kinds for a damaged file
            raise UserError(_damaged(path)) from None
        self._compiled_shapes: set[tuple[int, ...]] = set()
        super().__init__(
            path, metadata, None if metadata.dynamic_batch else 1, metadata.preprocessing.get("image_resize")
        )

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        # MindSpore compiles the graph for each shape, and warns about the products of a graph of open batch size.
        with nullcontext() if images.shape in self._compiled_shapes else native_warnings_hidden():
            outputs = self._graph(ms.Tensor(images))
        self._compiled_shapes.add(images.shape)
        return [output.asnumpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


_KINDS = {".onnx": _OnnxFile, ".mindir": _MindIRFile}

EXPORT_SUFFIXES = tuple(_KINDS)  # ends of the names of the files that can be opened


def is_exported(path: Union[str, os.PathLike]) -> bool:
    """Return whether the name of a file is that of an exported file."""
    return Path(path).suffix.lower() in EXPORT_SUFFIXES


def files_of_exported(path: Union[str, os.PathLike]) -> list[Path]:
    """Return the existing files of an exported network: the file itself, its metadata and its large weights.

    Weights in other files are found if their names are those that `write_onnx`, `write_mindir` or PyTorch gives them.
    """
    path = Path(path)
    if path.suffix.lower() == ".mindir":
        others = [metadata_path(path), *sorted(variables_folder(path).glob("*"))]
    else:
        others = [path.with_name(f"{path.name}{end}") for end in (".data", "_data")]
    return [path, *filter(Path.is_file, others)]


def open_exported(path: Union[str, os.PathLike], is_foreign_allowed: bool = False) -> ExportedFile:
    """Open a file that `write_onnx` or `write_mindir` has written, to run it on a CPU.

    Args:
        path: the file; the end of its name tells the format. Files that were written beside it must still be there.
        is_foreign_allowed: whether to accept ONNX classifiers of other software too. Their metadata says only what the
            graph tells: the number of channels, the size of the images and whether the outputs are probabilities.

    Raises:
        UserError: the file does not exist, is damaged, comes from other software, or needs a package that is missing.
    """
    path = Path(path)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"'{path}' is no exported file: its name must end in {' or '.join(_KINDS)}")
    if kind is _MindIRFile and path.suffix != ".mindir":
        raise UserError(f"'{path}' cannot be read: MindSpore reads only names that end in .mindir, so rename the file")
    if not path.is_file():
        raise UserError(f"exported file '{path}' does not exist")
    return kind(path, is_foreign_allowed)


def _damaged(path: Path) -> str:
    return f"'{path}' cannot be read: it is damaged, or files that were written beside it are missing; export it again"
