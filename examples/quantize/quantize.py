"""Quantise an exported classifier to int8 with ONNX Runtime's own tool:

    python examples/quantize/quantize.py model.onnx int8.onnx --image_path my_images/train

`model.onnx` is a file of `tools/export.py` without `--with_preprocess`. The images calibrate the ranges of the
activations, and the preprocessing is read from the file. The products and convolutions become int8; norms, GELU and GRN
stay float32.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np

try:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
except ImportError as missing:
    raise SystemExit(f'error: {missing}; run pip install -e ".[onnx]" in the clone') from None

from mindcv.data import Compose, create_transforms, find_images
from mindcv.engine.inference import read_image
from mindcv.export import ExportMetadata, open_exported
from mindcv.utils.checks import check_int
from mindcv.utils.cli import run_script
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_files, ensure_writable


class CalibrationImages(CalibrationDataReader):
    """Feeds images to the calibration, one at a time."""

    def __init__(self, paths: Sequence[str], metadata: ExportMetadata):
        transform = Compose(create_transforms(**metadata.preprocessing))
        self.batches: Iterator[np.ndarray] = (read_image(path, transform)[None] for path in paths)

    def get_next(self) -> Optional[dict[str, np.ndarray]]:
        """Return the inputs of the next call, or None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def quantize(source: str, target: str, paths: Sequence[str]) -> None:
    """Quantise the file `source` to the file `target`, calibrated with the images `paths`.

    Raises:
        UserError: the source is no file of tools/export.py, or prepares its images itself.
    """
    metadata = open_exported(source).metadata
    if metadata.takes_pixels:
        raise UserError(f"'{source}' prepares its images itself: export it without --with_preprocess")
    with atomic_files(target) as side:
        quantize_static(
            source,
            str(side),
            CalibrationImages(paths, metadata),
            # A range per channel keeps the accuracy; the outliers of few activations would make a coarse grid for all.
            per_channel=True,
            op_types_to_quantize=["Conv", "MatMul"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantise an exported classifier to int8.")
    parser.add_argument("source", help="ONNX file of tools/export.py")
    parser.add_argument("target", help="file to write")
    parser.add_argument("--image_path", required=True, nargs="+", help="images for the calibration: files or folders")
    parser.add_argument("--num_images", type=int, default=200, help="how many of them, evenly (default: %(default)s)")
    given = parser.parse_args()
    check_int("num_images", given.num_images, low=1)
    if os.path.realpath(given.source) == os.path.realpath(given.target):
        raise UserError(f"'{given.target}' is the file to quantise: give the int8 file another name")
    ensure_writable(given.target)
    paths = find_images(given.image_path)
    count = min(given.num_images, len(paths))
    quantize(given.source, given.target, [paths[i * len(paths) // count] for i in range(count)])


if __name__ == "__main__":
    run_script(main)
