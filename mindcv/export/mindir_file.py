"""Writes a network as a MindIR or AIR file, MindSpore's own formats, with the metadata in a JSON file beside it."""

from __future__ import annotations

import copy
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional, Union

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.export.metadata import ExportMetadata
from mindcv.export.networks import output_kind
from mindcv.models.layers import ProductCell
from mindcv.utils.checks import check_int, check_name
from mindcv.utils.device import keep_working_folder_clean, mindspore_log_disabled
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_files, atomic_write_text

__all__ = ["check_air", "metadata_path", "variables_folder", "write_mindir"]

_NOT_PLAIN = re.compile(r"[^0-9a-zA-Z@_\-.:/]")  # characters that mindspore.export refuses in a path


def metadata_path(path: Union[str, os.PathLike]) -> Path:
    """Return the path of the JSON file that belongs to a MindIR or AIR file."""
    return Path(path).with_suffix(".json")


def variables_folder(path: Union[str, os.PathLike]) -> Path:
    """Return the path of the folder that holds the weights of a MindIR file if they have more than 1 GB."""
    path = Path(path)
    return path.with_name(f"{_plain_stem(path.stem)}_variables")


def check_air() -> None:
    """Check that MindSpore can write AIR files here.

    Raises:
        UserError: there is no Ascend.
    """
    device = ms.get_context("device_target")
    if device != "Ascend":
        raise UserError(
            f"MindSpore writes AIR files on an Ascend only, and the device here is {device}: write a file whose "
            "name ends in .mindir or .onnx instead, or export on a machine with an Ascend"
        )


def write_mindir(
    network: nn.Cell,
    path: Union[str, os.PathLike],
    image_size: int,
    *,
    file_format: str = "mindir",
    model: str = "",
    class_names: Sequence[str] = (),
    preprocessing: Optional[Mapping[str, Any]] = None,
    with_softmax: bool = False,
    half: bool = False,
    dynamic_batch: bool = True,
) -> ExportMetadata:
    """Write a network as a MindIR file, which `mindspore.load` reads, and its metadata as a JSON file beside it.

    Weights of more than 1 GB are in a folder beside the file, whose name ends in `_variables`.

    Args:
        network: a ConvNeXt or a ConvNeXtFeatures in float32. It does not change.
        path: output file, whose name ends in `.mindir`, or in `.air` for this format.
        image_size: height and width of the images that the file takes.
        file_format: 'mindir', or 'air', which needs an Ascend.
        model, class_names, preprocessing: see `ExportMetadata`. `image_resize` and `in_channels` need not be given.
        with_softmax: whether the outputs are probabilities instead of logits.
        half: whether the file computes in float16. Its inputs and outputs stay float32.
        dynamic_batch: whether the file takes any number of images. Otherwise it takes one.

    Returns:
        The metadata in the JSON file.

    Raises:
        UserError: the network cannot be exported, there is no Ascend for an AIR file, or the files cannot be written.
    """
    check_name("file_format", file_format, ("mindir", "air"))
    check_int("image_size", image_size, network.least_side if hasattr(network, "least_side") else 1)
    kind = output_kind(network, with_softmax)
    if file_format == "air":
        check_air()
    elif Path(path).suffix != ".mindir":
        raise UserError(
            f"the name of a MindIR file must end in .mindir, because MindSpore reads no other, got '{path}'"
        )
    preprocessing = {**(preprocessing or {}), "image_resize": image_size, "in_channels": network.in_channels}
    metadata = ExportMetadata(model, tuple(class_names), preprocessing, kind, False, dynamic_batch, half)
    exported = _Exported(_in_half(network) if half else network, with_softmax).set_train(False)
    images = Tensor(shape=[None if dynamic_batch else 1, network.in_channels, image_size, image_size], dtype=ms.float32)
    with atomic_files(path) as side:
        _export(exported, images, side, file_format)
        atomic_write_text(metadata_path(side), metadata.as_json())
    return metadata


def _export(network: nn.Cell, images: Tensor, path: Path, file_format: str) -> None:
    keep_working_folder_clean()
    stem = _plain_stem(path.stem)
    # MindSpore warns that large weights are in files of their own.
    with mindspore_log_disabled(), _plain_folder(path.parent) as folder:
        ms.export(network, images, file_name=str(folder / stem), file_format=file_format.upper())
    large = path.with_name(f"{stem}_graph{path.suffix}")  # MindSpore's name of the file if its weights are outside
    (large if large.exists() else path.with_name(f"{stem}{path.suffix}")).rename(path)


def _plain_stem(stem: str) -> str:
    """Return the stem of the file that MindSpore writes, with allowed characters alone.

    The folder of large weights keeps this name, so two stems must not become one.
    """
    plain = _NOT_PLAIN.sub("_", stem)
    return stem if plain == stem else f"{plain}_{zlib.crc32(os.fsencode(stem)):08x}"


@contextmanager
def _plain_folder(folder: Path) -> Iterator[Path]:
    """Yield a path of the folder with allowed characters alone: its own path, or a temporary link to it.

    Raises:
        UserError: the folder for temporary files has other characters too.
    """
    if not _NOT_PLAIN.search(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mindcv-") as temporary:
        if _NOT_PLAIN.search(temporary):
            raise UserError(
                f"MindSpore cannot write to '{folder}', because its path has characters other than ASCII letters, "
                "digits and - _ . : @: set the environment variable TMPDIR to a folder without such characters"
            )
        link = Path(temporary, "folder")
        link.symlink_to(folder.absolute())
        yield link


def _in_half(network: nn.Cell) -> nn.Cell:
    """Return a copy that computes in float16 and stores the factors of its products in float16."""
    network = copy.deepcopy(network)
    for _, cell in network.cells_and_names():
        if isinstance(cell, ProductCell):
            for parameter in cell.weights():
                parameter.set_dtype(ms.float16)
    return network.to_float(ms.float16)


class _Exported(nn.Cell):
    """A network with float32 outputs, as a tuple if there are several, and with a softmax if asked for."""

    def __init__(self, network: nn.Cell, with_softmax: bool):
        super().__init__(auto_prefix=False)
        self.network = network
        self.with_softmax = with_softmax

    def construct(self, images):
        outputs = self.network(images)
        if isinstance(outputs, (list, tuple)):
            results = ()
            for output in outputs:
                results += (ops.cast(output, ms.float32),)
            return results
        outputs = ops.cast(outputs, ms.float32)
        return ops.softmax(outputs, -1) if self.with_softmax else outputs
